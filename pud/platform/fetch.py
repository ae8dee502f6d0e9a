"""Public data sets in our format, from wherever they can be had, always the same bytes."""

import gzip
import hashlib
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import IO

import numpy as np

from pud.base.errors import InputError
from pud.base.files import finished_folder
from pud.base.progress import say
from pud.data.readers.npy import write_split
from pud.exchange.pictures.idx import FASHION as CLASSES
from pud.exchange.pictures.idx import parse_idx

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
TIMEOUT_SECONDS = 120
# sha256 of the uncompressed IDX files: the compressed ones differ between the packagers.
IDX_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

IDX_BYTES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}
CHUNK = 1 << 20
COMPRESSED_OVERHEAD = 4096  # more than gzip adds to what does not shrink: its blocks' headers, a file name


def _installed(_: Path) -> Path:
    """The Debian package's folder, where it is installed."""
    return Path("/") / DEBIAN_FOLDER


def _debian(scratch: Path) -> Path:
    """The Debian package, downloaded and unpacked without root."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise OSError("no apt-get on this system")
    subprocess.run(
        ["apt-get", "download", DEBIAN_PACKAGE], cwd=scratch, check=True, capture_output=True, timeout=TIMEOUT_SECONDS
    )
    package = next(scratch.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=scratch, check=True, capture_output=True)
    return scratch / DEBIAN_FOLDER


def _mirror(scratch: Path) -> Path:
    """The data set's public mirror."""
    for name in IDX_SHA256:
        most = IDX_BYTES[name] + COMPRESSED_OVERHEAD
        with (
            urllib.request.urlopen(f"{MIRROR}/{name}.gz", timeout=TIMEOUT_SECONDS) as response,
            (scratch / f"{name}.gz").open("wb") as file,
        ):
            for chunk in _chunks(response, most, f"{MIRROR}/{name}.gz"):
                file.write(chunk)
    return scratch


SOURCES: tuple[Callable[[Path], Path], ...] = (_installed, _debian, _mirror)

UNREADABLE = (OSError, EOFError, zlib.error, HTTPException, subprocess.SubprocessError, StopIteration, InputError)


def read_idx_folder(folder: Path) -> dict[str, np.ndarray]:
    """Return the four arrays of a folder of gzipped IDX files, each checked against its digest."""
    arrays = {}
    for name, digest in IDX_SHA256.items():
        content, found = bytearray(), hashlib.sha256()
        with gzip.open(folder / f"{name}.gz") as file:
            for chunk in _chunks(file, IDX_BYTES[name], f"{folder / name}.gz"):
                found.update(chunk)
                content += chunk
        if found.hexdigest() != digest:
            raise InputError(f"{folder / name}.gz is not the published Fashion-MNIST (its digest differs): remove it")
        arrays[name] = parse_idx(bytes(content))
    return arrays


def _chunks(source: IO[bytes] | gzip.GzipFile, most: int, name: str) -> Iterator[bytes]:
    """Yield what can be read from a stream, which an untrusted source may never end.

    Raises:
        InputError: it holds more than ``most`` bytes.
    """
    size = 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > most:
            raise InputError(f"{name} is not the published Fashion-MNIST (it holds over {most:,} bytes): remove it")
        yield chunk


def _first_source(sources: tuple[Callable[[Path], Path], ...], scratches: Iterator[Path]) -> dict[str, np.ndarray]:
    reasons = []
    for source in sources:
        try:
            return read_idx_folder(source(next(scratches)))
        except UNREADABLE as error:
            reasons.append(f"{source.__doc__} {error}")
    raise InputError(
        "Fashion-MNIST could not be had; install the Debian package dataset-fashion-mnist or go online. Tried: "
        + "; ".join(reasons)
    )


def fetch_fashion_mnist(out: Path, sources: tuple[Callable[[Path], Path], ...] = SOURCES) -> None:
    """Write Fashion-MNIST (60,000 + 10,000 grey 28x28 images) as a data set into the folder ``out``.

    Raises:
        InputError: no source could be reached, or its files differ from the published ones.
    """
    with ExitStack() as stack:
        scratches = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in sources)
        arrays = _first_source(sources, scratches)
    with finished_folder(out, "train/dataset.json") as folder:
        for split, prefix in (("train", "train"), ("test", "t10k")):
            write_split(
                folder / split,
                arrays[f"{prefix}-images-idx3-ubyte"][:, None],
                arrays[f"{prefix}-labels-idx1-ubyte"],
                classes=CLASSES,
                name="fashion-mnist",
                source="Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747), MIT licence",
            )
    say(f"Fashion-MNIST is in {out}")


FETCHERS: dict[str, Callable[[Path], None]] = {"fashion-mnist": fetch_fashion_mnist}


def fetch(name: str, out: Path) -> None:
    """Write the public data set called ``name`` into the folder ``out``."""
    if name not in FETCHERS:
        raise InputError(f"unknown data set {name!r}: choose one of {', '.join(sorted(FETCHERS))}")
    FETCHERS[name](out)
