"""Arrays of pictures and labels: ``.npz``, or a pair of ``.npy``; (n, h, w), (n, h, w, c) or (n, c, h, w).

Splits are told by words in the arrays' names: ``x_train``, ``test_labels``, ``train/images.npy``.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pud.base.errors import InputError
from pud.base.files import read_array
from pud.base.progress import track
from pud.exchange.pictures.contract import Form, Pictures, Raw, Split, fenced, listed, shown, split_named
from pud.exchange.pictures.folder import subfolders
from pud.exchange.pictures.table import class_names

MAXIMUM_BYTES = 256 << 30
BOMB_BYTES = 1 << 30  # from this size on, an array that was packed by more than BOMB_RATIO is no picture
BOMB_RATIO = 200
CHUNK = 1 << 22
ROWS = 1024
CHANNELS = (1, 3, 4)
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


def _sources(source: Path) -> list[Path]:
    """Return the arrays that may belong to a source: beside a ``.npy``, in a folder, in its train and test."""
    if source.is_file() and source.suffix.lower() == ".npz":
        return [source]
    if source.is_file():
        return sorted(source.parent.glob("*.npy")) if source.suffix.lower() == ".npy" else []
    fence = fenced(source)
    parts = [source, *(folder for folder in subfolders(source) if split_named(folder.name))]
    found = [path for folder in parts for end in ("npy", "npz") for path in folder.glob(f"*.{end}")]
    return sorted(path for path in found if not fence(path.relative_to(source).as_posix()))


def reads(source: Path) -> bool:
    """Tell whether there is an array."""
    return bool(_sources(source))


def _unpacked(path: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield the arrays of an archive by name, each written into the empty folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            for number, member in enumerate(archive.infolist()):
                if not member.filename.endswith(".npy"):
                    continue
                if member.file_size > min(MAXIMUM_BYTES, max(BOMB_BYTES, BOMB_RATIO * member.compress_size)):
                    raise InputError(
                        f"{path} holds {member.compress_size:,} bytes that unfold to {member.file_size:,}: no pictures "
                        "do that, do not use it"
                    )
                out = scratch / f"{path.stem}-{number}.npy"
                with archive.open(member) as packed, out.open("wb") as file:
                    while chunk := packed.read(CHUNK):
                        file.write(chunk)
                yield member.filename.removesuffix(".npy"), out
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} is damaged or no .npz ({error}): write it again") from error


def _mapped(path: Path) -> np.ndarray | None:
    """Return an array as a memory map, or nothing if it holds neither pictures nor labels."""
    found = read_array(path, mmap=True)
    return found if found.dtype.kind in "biuf" else None


def open_unlabelled(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures of all splits, without their labels."""
    return open_arrays(source, scratch, value_range, labelled=False)


def open_arrays(source: Path, scratch: Path, value_range: tuple[float, ...] = (), *, labelled: bool = True) -> Pictures:
    """Return the pictures of all splits. Values are bytes, or else numbers in a range that was stated or is found."""
    root = source if source.is_dir() else source.parent
    found = Pictures({}, ())
    arrays: dict[str, np.ndarray] = {}
    for path in _sources(source):
        name = path.relative_to(root).with_suffix("").as_posix()
        packed = path.suffix.lower() == ".npz"
        for inner, file in _unpacked(path, scratch) if packed else [("", path)]:
            if (array := _mapped(file)) is not None:
                arrays[f"{name}/{inner}" if packed else name] = array
    for split, (pictures, of) in _pairs(arrays, source, labelled).items():
        images = arrays[pictures]
        labels = arrays[of] if labelled else np.zeros(len(images), np.int64)
        found.splits[split] = _split(pictures, images, labels, value_range, found.notes)
    if not labelled:
        return found
    if "train" in found.splits:
        last = max(int(split.labels.max(initial=-1)) for split in found.splits.values())
        classes = class_names(root, found.notes) or tuple(map(str, range(last + 1)))
        return Pictures(found.splits, classes, found.notes)
    raise InputError(f"{source} holds no training pictures, only {listed(found.splits)}: rename the arrays")


def _pairs(arrays: dict[str, np.ndarray], source: Path, labelled: bool) -> dict[str, tuple[str, str]]:
    """Return the names of the pictures and of the labels of each split, told apart by their shapes; without labels an
    empty word stands for them."""
    by_split: dict[str, list[str]] = {}
    for name in arrays:
        words = re.split(r"[^a-z]+", name.lower())
        by_split.setdefault(next(filter(None, map(split_named, reversed(words))), "train"), []).append(name)
    pairs = {}
    for split, names in by_split.items():
        pictures = [name for name in names if arrays[name].ndim in (3, 4)]
        labels = [name for name in names if _is_labels(arrays[name])] if labelled else [""]
        if len(pictures) != 1 or len(labels) != 1:
            told = [f"{shown(name)} {arrays[name].dtype} {arrays[name].shape}" for name in names]
            raise InputError(
                f"{source} holds {', '.join(told[:10])}: give one array (n, h, w), (n, h, w, c) or (n, c, h, w) of "
                f"pictures{' and one (n,) of whole numbers as labels' if labelled else ''}, for each of train and test"
            )
        pairs[split] = pictures[0], labels[0]
    return pairs


def _is_labels(array: np.ndarray) -> bool:
    return array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)


def _split(
    name: str, images: np.ndarray, labels: np.ndarray, value_range: tuple[float, ...], notes: list[str]
) -> Split:
    labels = np.array(labels).reshape(-1)
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise InputError(f"the labels of {name} are not whole numbers: write the number of the class of each picture")
    if len(images) != len(labels):
        raise InputError(f"{name} holds {len(images):,} pictures and {len(labels):,} labels: as many are needed")
    first = _channels_first(name, images.shape)
    to_bytes = _to_bytes(name, images, value_range, notes)

    def picture(index: int) -> Raw:
        one = to_bytes(images[index])
        return one.transpose(1, 2, 0) if first else one

    return Split([f"{name}/{index:05d}" for index in range(len(labels))], whole, picture)


def _channels_first(name: str, shape: tuple[int, ...]) -> bool:
    if len(shape) == 3:
        return False
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first == last:
        raise InputError(
            f"{name} has the shape {shape}, in which {'two numbers' if first else 'none'} may count the channels: "
            "write (n, c, h, w) or (n, h, w, c) with 1, 3 or 4 channels"
        )
    return first


def _to_bytes(
    name: str, images: np.ndarray, value_range: tuple[float, ...], notes: list[str]
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from values as they lie there to bytes."""
    if images.dtype == np.uint8 and not value_range:
        return np.ascontiguousarray
    if not value_range:
        low, high = _extremes(name, images)
        if images.dtype.kind == "b":
            value_range = RANGES[0]
        elif images.dtype.kind in "iu":
            value_range = next((known for known in ((0.0, 255.0), (0.0, 65535.0)) if low >= 0 and high <= known[1]), ())
        else:
            value_range = next((known for known in RANGES if known[0] <= low and high <= known[1]), ())
        if not value_range:
            raise InputError(
                f"{name} holds values from {low:g} to {high:g}, of no usual range: state black and white, such as "
                "--value-range '[-2.1, 2.6]'"
            )
        notes.append(
            f"{shown(name)} holds {images.dtype} from {low:g} to {high:g}: {value_range[0]:g} was taken for black and "
            f"{value_range[1]:g} for white"
        )
    if len(value_range) != 2 or not value_range[0] < value_range[1]:
        raise InputError(f"the value range is {list(value_range)}: give two numbers, of black and of white")
    black, white = value_range

    def to_bytes(one: np.ndarray) -> np.ndarray:
        values = (one.astype(np.float64) - black) * (255 / (white - black))
        if not np.isfinite(values).all():
            raise ValueError("values that are not finite")
        return values.round().clip(0, 255).astype(np.uint8)

    return to_bytes


def _extremes(name: str, images: np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest value; those that are not finite are left to be skipped."""
    low, high = np.inf, -np.inf
    for start in track(range(0, len(images), ROWS), f"range of values of {name}"):
        part = images[start : start + ROWS].astype(np.float64)
        part = part[np.isfinite(part)]
        low, high = min(low, part.min(initial=np.inf)), max(high, part.max(initial=-np.inf))
    return float(low), float(high)


FORMS = {"arrays": Form(reads, open_arrays, unlabelled=open_unlabelled)}
