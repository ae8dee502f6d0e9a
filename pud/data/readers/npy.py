"""NumPy arrays: ``images.npy`` (uint8, (n, c, h, w)), ``labels.npy`` (int64, (n,)) and ``dataset.json`` (name, classes,
source, sha256 of each array)."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pud.base.errors import InputError
from pud.base.files import read_array, read_json, sha256, write_json
from pud.data.images import LabelledImages
from pud.data.verified import digest_of

FORMAT = "pud-dataset/1"
FILES = ("images.npy", "labels.npy")
MINIMUM_IMAGES = 2


def write_split(
    folder: Path, images: np.ndarray, labels: np.ndarray, *, classes: Sequence[str], name: str, source: str
) -> None:
    """Write one split; the same arrays give the same bytes."""
    write_slices(folder, [images], labels, shape=images.shape[1:], classes=classes, name=name, source=source)


def write_slices(
    folder: Path,
    slices: Iterable[np.ndarray],
    labels: np.ndarray,
    *,
    shape: tuple[int, ...],
    classes: Sequence[str],
    name: str,
    source: str,
) -> None:
    """Write one split as ``write_split`` does, from slices (any, c, h, w) that need not fit into memory together.

    shape: (c, h, w). The slices hold an image for each label, in its order.
    """
    folder.mkdir(parents=True)
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for images in slices:
            file.write(np.ascontiguousarray(images, dtype=np.uint8).data)
    describe_split(folder, labels, classes=classes, name=name, source=source)


def describe_split(folder: Path, labels: np.ndarray, *, classes: Sequence[str], name: str, source: str) -> None:
    """Write what a split needs beside its ``images.npy``."""
    np.save(folder / "labels.npy", np.ascontiguousarray(labels, dtype=np.int64), allow_pickle=False)
    write_json(
        folder / "dataset.json",
        {
            "format": FORMAT,
            "name": name,
            "classes": list(classes),
            "source": source,
            "sha256": {file: sha256(folder / file) for file in FILES},
        },
    )


class NumpyReader:
    """Opens what ``write_split`` wrote."""

    def reads(self, folder: Path) -> bool:
        """Tell whether ``dataset.json`` is there."""
        return (folder / "dataset.json").exists()

    def open(self, folder: Path) -> LabelledImages:
        """Return the images as a memory map."""
        info = read_json(folder / "dataset.json", FORMAT, name=str, classes=list, sha256=dict)
        for file in FILES:
            if digest_of(folder / file) != info["sha256"].get(file):
                raise InputError(f"{folder / file} does not match its digest in dataset.json: fetch the data set again")
        images = read_array(folder / "images.npy", np.uint8, 4, mmap=True)
        labels = read_array(folder / "labels.npy", np.int64, 1)
        if len(images) != len(labels) or len(images) < MINIMUM_IMAGES:
            raise InputError(
                f"{folder} holds {len(images)} images and {len(labels)} labels: both must be equal and > 1"
            )
        if not images[0].size:
            raise InputError(f"{folder / 'images.npy'} holds images of shape {images.shape[1:]}, without a pixel")
        classes = tuple(map(str, info["classes"]))
        if len(set(classes)) < len(classes):
            twice = sorted({name for name in classes if classes.count(name) > 1})
            raise InputError(
                f"{folder / 'dataset.json'} names more than one class {', '.join(map(repr, twice[:5]))}: give each a "
                "name of its own, or one label to what is one class"
            )
        if labels.min() < 0 or labels.max() >= len(classes):
            raise InputError(
                f"{folder / 'labels.npy'} holds labels {labels.min()}..{labels.max()}, outside the {len(classes)} "
                "classes of dataset.json: correct the labels or the class names"
            )
        return LabelledImages(images, labels, classes, info["name"], *(info["sha256"][file] for file in FILES))


READERS = {"npy": NumpyReader()}
