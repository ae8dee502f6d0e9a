"""The IDX files of MNIST (LeCun 1998) and its likes, Fashion-MNIST and KMNIST: gzipped or not."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from pud.base.errors import InputError
from pud.exchange.pictures.contract import Form, Pictures, Raw, Split, first_folder, not_published

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FASHION: tuple[str, ...] = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
PLACES = (".", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")
PUBLISHED = {  # md5 of the gzipped files in the order of FILES, as torchvision states them
    "MNIST": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "Fashion-MNIST": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "KMNIST": (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
}
MAXIMUM_BYTES = 4 << 30
CHUNK = 1 << 20


def idx_shape(head: bytes) -> tuple[int, ...]:
    """Return the shape that the first bytes of an IDX file of unsigned bytes tell; 4 + 4 bytes a dimension are needed.

    Raises:
        InputError: it is another file.
    """
    if len(head) < 4 or head[:3] != b"\0\0\x08" or len(head) < 4 + 4 * head[3]:
        raise InputError("not an IDX file of unsigned bytes: fetch it again")
    return struct.unpack(f">{head[3]}I", head[4 : 4 + 4 * head[3]])


def parse_idx(content: bytes) -> np.ndarray:
    """Return the uint8 array of an IDX file."""
    shape = idx_shape(content)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _map(path: Path, scratch: Path, dimensions: int) -> np.ndarray:
    """Return the array in ``path``, or in ``path``.gz, as a memory map."""
    if not path.is_file():
        packed, path = path.with_name(f"{path.name}.gz"), scratch / path.name
        try:
            with gzip.open(packed) as source, path.open("wb") as file:
                while chunk := source.read(CHUNK):
                    if file.tell() > MAXIMUM_BYTES:
                        raise InputError(f"{packed} unfolds to over {MAXIMUM_BYTES:,} bytes: do not use it")
                    file.write(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{packed} is damaged ({error}): get it again") from error
    with path.open("rb") as file:
        try:
            shape = idx_shape(file.read(4 + 4 * 255))
        except InputError as error:
            raise InputError(f"{path.name} is {error}") from error
    size = 4 + 4 * len(shape) + int(np.prod(shape, dtype=object))
    if len(shape) != dimensions or path.stat().st_size != size or not all(shape):
        raise InputError(
            f"{path.name} claims to hold {shape}, which its {path.stat().st_size:,} bytes are not: get it again"
        )
    return np.memmap(path, np.uint8, "r", offset=4 + 4 * len(shape), shape=shape)


def _folder(source: Path) -> Path | None:
    name = FILES["train"][0]
    return first_folder(source, *PLACES, holds=name) or first_folder(source, *PLACES, holds=f"{name}.gz")


def reads(source: Path) -> bool:
    """Tell whether the training pictures are there, gzipped or not."""
    return _folder(source) is not None


def open_idx(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures of the four files, or of the two for training; in Fashion-MNIST classes are words."""
    folder = _folder(source)
    assert folder, source
    splits = {}
    for name, (pictures, labels) in FILES.items():
        if name == "train" or any((folder / f"{pictures}{suffix}").exists() for suffix in ("", ".gz")):
            splits[name] = _split(_map(folder / pictures, scratch, 3), _map(folder / labels, scratch, 1), name)
    packed = [folder / f"{file}.gz" for files in FILES.values() for file in files]
    there = any(path.is_file() for path in packed)
    what = next(
        (what for what, md5 in PUBLISHED.items() if not not_published(dict(zip(packed, md5, strict=True)), what)), ""
    )
    notes = [] if what or not there else [f"the files are not the published {', '.join(PUBLISHED)}: their md5 differ"]
    if "fashion" in str(folder).lower() or (there and what == "Fashion-MNIST"):
        classes = FASHION
    else:
        classes = tuple(map(str, range(max(10, int(splits["train"].labels.max()) + 1))))
    return Pictures(splits, classes, notes)


def _split(images: np.ndarray, labels: np.ndarray, name: str) -> Split:
    if len(images) != len(labels):
        raise InputError(
            f"the IDX files of {name} hold {len(images):,} pictures and {len(labels):,} labels: get them again"
        )

    def picture(index: int) -> Raw:
        return images[index]

    return Split([f"{FILES[name][0]}/{index:05d}" for index in range(len(labels))], labels.astype(np.int64), picture)


FORMS = {"idx": Form(reads, open_idx)}
