"""Labelled images on disk and in memory.

A data set is a folder with ``train/`` and ``test/``; each holds ``images.npy`` (uint8, (n, c, h, w)), ``labels.npy``
(int64, (n,)) and ``dataset.json`` (name, classes, source, sha256 of each array). Images are opened as a memory map.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pud.base.errors import InputError
from pud.base.files import read_array, read_json, sha256, write_json
from pud.data.verified import digest_of

FORMAT = "pud-dataset/1"
FILES = ("images.npy", "labels.npy")
MINIMUM_IMAGES = 2


@dataclass(frozen=True)
class Split:
    """images: uint8 (n, c, h, w); labels: int64 (n,), each below len(classes); digests: sha256 of their files."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    digest: str
    labels_digest: str = ""


def write_split(
    folder: Path, images: np.ndarray, labels: np.ndarray, *, classes: Sequence[str], name: str, source: str
) -> None:
    """Write one split; the same arrays give the same bytes."""
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", np.ascontiguousarray(images, dtype=np.uint8), allow_pickle=False)
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


def open_split(folder: Path) -> Split:
    """Open one split of a data set as a memory map and check everything that can be wrong with it."""
    folder = Path(folder)
    info = read_json(folder / "dataset.json", FORMAT, name=str, classes=list, sha256=dict)
    for file in FILES:
        if digest_of(folder / file) != info["sha256"].get(file):
            raise InputError(f"{folder / file} does not match its digest in dataset.json: fetch the data set again")
    images = read_array(folder / "images.npy", np.uint8, 4, mmap=True)
    labels = read_array(folder / "labels.npy", np.int64, 1)
    if len(images) != len(labels) or len(images) < MINIMUM_IMAGES:
        raise InputError(f"{folder} holds {len(images)} images and {len(labels)} labels: both must be equal and > 1")
    if not images[0].size:
        raise InputError(f"{folder / 'images.npy'} holds images of shape {images.shape[1:]}, without a pixel")
    classes = tuple(map(str, info["classes"]))
    if len(set(classes)) < len(classes):
        twice = sorted({name for name in classes if classes.count(name) > 1})
        raise InputError(
            f"{folder / 'dataset.json'} names more than one class {', '.join(map(repr, twice[:5]))}: give each a name "
            "of its own, or one label to what is one class"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(
            f"{folder / 'labels.npy'} holds labels {labels.min()}..{labels.max()}, outside the {len(classes)} classes "
            "of dataset.json: correct the labels or the class names"
        )
    return Split(images, labels, classes, info["name"], *(info["sha256"][file] for file in FILES))


def open_training_split(dataset: Path) -> Split:
    """Open the training images of a data set, as ``open_split`` does.

    Raises:
        InputError: also for a class without an image, of which nothing could be learned or said.
    """
    split = open_split(dataset / "train")
    if len(split.classes) < 2:
        raise InputError(f"{dataset / 'train'} has one class: a classifier tells two or more apart, give such data")
    counts = np.bincount(split.labels, minlength=len(split.classes))
    if empty := [f"{label} ({split.classes[label]})" for label in np.flatnonzero(counts == 0)]:
        raise InputError(
            f"{dataset / 'train'} holds no image of class {', '.join(empty[:10])}: leave the class out of dataset.json "
            "and number the labels anew, or add images of it"
        )
    return split


def folder_digest(folder: Path) -> str:
    """Return the digest under which DVC versions the folder (the ``md5`` of its ``.dvc`` file)."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: fetch the data set first (pud fetch fashion-mnist)")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    entries = [{"md5": _md5(files[name].read_bytes()), "relpath": name} for name in sorted(files)]
    return _md5(json.dumps(entries, sort_keys=True).encode()) + ".dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def pixels(images: np.ndarray | Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], channels last in memory; same shape."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements="W"))  # copies what is a read-only map
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)


def to_uint8(images: Tensor) -> np.ndarray:
    """Return float images in [0, 1] rounded to uint8; same shape."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
