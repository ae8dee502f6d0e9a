"""Labelled images in memory, and how their pixels are counted."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pud.base.errors import InputError

TRAINING, OTHER, UNLABELLED = "training", "other", "unlabelled"  # what pictures are to the model that is looked at


@dataclass(frozen=True)
class LabelledImages:
    """images: uint8 (n, c, h, w); labels: int64 (n,), each below len(classes); digests: sha256 of what they lie in.

    pictures: TRAINING, or those that no model was trained on: OTHER, or UNLABELLED, whose labels are what a model says.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    digest: str
    labels_digest: str = ""
    pictures: str = TRAINING


def folder_digest(folder: Path) -> str:
    """Return the digest under which DVC versions the folder (the ``md5`` of its ``.dvc`` file)."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: fetch the data set first (pud fetch fashion-mnist)")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    entries = [{"md5": _md5(files[name]), "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def pixels(images: np.ndarray | Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], channels last in memory; same shape."""
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.require(images, requirements="W"))  # copies what is a read-only map
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)


def to_uint8(images: Tensor) -> np.ndarray:
    """Return float images in [0, 1] rounded to uint8; same shape."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
