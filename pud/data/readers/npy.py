"""NumPy arrays: ``images.npy`` (uint8, (n, c, h, w)), ``labels.npy`` (int64, (n,)) and ``dataset.json`` (name, classes,
source, sha256 of each array).

Pictures without labels lie alike, but without ``labels.npy`` and with a format of their own, which nobody takes for the
other one.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pud.base.errors import InputError
from pud.base.files import read_array, read_json, sha256, write_json
from pud.data.images import OTHER, TRAINING, UNLABELLED, LabelledImages
from pud.data.verified import digest_of

FORMAT, WITHOUT_LABELS = "pud-dataset/1", "pud-unlabelled/1"
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


def describe_split(
    folder: Path,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    name: str,
    source: str,
    pictures: str = TRAINING,
) -> None:
    """Write what a split needs beside its ``images.npy``; pictures: as in ``LabelledImages``."""
    np.save(folder / "labels.npy", np.ascontiguousarray(labels, dtype=np.int64), allow_pickle=False)
    write_json(
        folder / "dataset.json",
        {
            "format": FORMAT,
            "name": name,
            "classes": list(classes),
            "source": source,
            **({} if pictures == TRAINING else {"pictures": pictures}),
            "sha256": {file: sha256(folder / file) for file in FILES},
        },
    )


def describe_unlabelled(folder: Path, *, name: str, source: str) -> None:
    """Write what pictures without labels need beside their ``images.npy``."""
    digests = {FILES[0]: sha256(folder / FILES[0])}
    write_json(folder / "dataset.json", {"format": WITHOUT_LABELS, "name": name, "source": source, "sha256": digests})


def is_unlabelled(folder: Path) -> bool:
    """Tell whether a split holds pictures without labels; False where there is none that can be read."""
    try:
        read_json(folder / "dataset.json", WITHOUT_LABELS)
    except InputError:
        return False
    return True


def open_unlabelled(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return pictures without labels, uint8 (n, c, h, w), as a memory map, and what their dataset.json says.

    Raises:
        InputError: something is wrong with the folder.
    """
    info = read_json(folder / "dataset.json", WITHOUT_LABELS, name=str, source=str, sha256=dict)
    return _images(folder, info, FILES[:1]), info


def refuse_unlabelled(folder: Path) -> None:
    """Raise InputError for a split without labels, of which a scan alone can say something."""
    if is_unlabelled(folder):
        raise InputError(
            f"{folder} holds pictures without labels, which serve `pud scan` with a model alone: import pictures with "
            "their labels (pud import without --unlabelled)"
        )


def _images(folder: Path, info: dict[str, Any], files: Sequence[str]) -> np.ndarray:
    """Return the images of a split, as a memory map, after these files were compared with dataset.json."""
    for file in files:
        if digest_of(folder / file) != info["sha256"].get(file):
            raise InputError(f"{folder / file} does not match its digest in dataset.json: fetch the data set again")
    images = read_array(folder / FILES[0], np.uint8, 4, mmap=True)
    if len(images) < MINIMUM_IMAGES:
        raise InputError(f"{folder} holds {len(images)} images: give two or more")
    if not images[0].size:
        raise InputError(f"{folder / FILES[0]} holds images of shape {images.shape[1:]}, without a pixel")
    return images


class NumpyReader:
    """Opens what ``write_split`` wrote."""

    def reads(self, folder: Path) -> bool:
        """Tell whether ``dataset.json`` is there."""
        return (folder / "dataset.json").exists()

    def open(self, folder: Path) -> LabelledImages:
        """Return the images as a memory map."""
        refuse_unlabelled(folder)
        info = read_json(folder / "dataset.json", FORMAT, name=str, classes=list, sha256=dict)
        images = _images(folder, info, FILES)
        labels = read_array(folder / "labels.npy", np.int64, 1)
        if len(images) != len(labels):
            raise InputError(f"{folder} holds {len(images)} images and {len(labels)} labels: both must be equal")
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
        if (pictures := info.get("pictures", TRAINING)) not in (TRAINING, OTHER, UNLABELLED):
            raise InputError(f"{folder / 'dataset.json'} is of {str(pictures)[:40]!r} pictures: write it anew")
        digest, labels_digest = (info["sha256"][file] for file in FILES)
        return LabelledImages(images, labels, classes, info["name"], digest, labels_digest, pictures)


READERS = {"npy": NumpyReader()}
