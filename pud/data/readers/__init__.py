"""Forms in which labelled images lie on disk, one file each: a module offers ``READERS = {name: reader}``.

A reader opens one split (``train`` or ``test``) of a data set; the first by name that knows a folder's form opens it.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from pud.base.errors import InputError
from pud.base.registry import Registry
from pud.data.images import TRAINING, LabelledImages


class Reader(Protocol):
    """Opens folders of one form."""

    def reads(self, folder: Path) -> bool:
        """Tell whether a folder is of this form, from the files that are in it."""

    def open(self, folder: Path) -> LabelledImages:
        """Return its images, as a memory map where they are many, with all checked that can be wrong.

        Raises:
            InputError: something is wrong with the folder.
        """


READERS: Registry[Reader] = Registry("pud.data.readers", "READERS", "form of data set")


def open_split(folder: Path, *, of_any: bool = False) -> LabelledImages:
    """Open one split of a data set, in whatever form it lies there, and check everything that can be wrong with it.

    of_any: those too that a scan took though no model was trained on them; nothing else may.
    """
    folder, readers = Path(folder), READERS.entries()
    for reader in readers.values():
        if reader.reads(folder):
            split = reader.open(folder)
            if split.pictures != TRAINING and not of_any:
                raise InputError(
                    f"{folder} holds {split.pictures} pictures, which a scan alone may look at: give the pictures that "
                    "the model was trained on, with their labels"
                )
            return split
    raise InputError(
        f"{folder / 'dataset.json'} is missing: give the folder that the matching step wrote, or images in one of the "
        f"forms {', '.join(readers)}"
    )


def open_training_split(dataset: Path, *, of_any: bool = False) -> LabelledImages:
    """Open the training images of a data set, as ``open_split`` does.

    Raises:
        InputError: also for a class without an image, of which nothing could be learned or said; of pictures that no
            model was trained on some classes may be missing.
    """
    split = open_split(dataset / "train", of_any=of_any)
    if len(split.classes) < 2:
        raise InputError(f"{dataset / 'train'} has one class: a classifier tells two or more apart, give such data")
    counts = np.bincount(split.labels, minlength=len(split.classes))
    empty = [f"{label} ({split.classes[label]})" for label in np.flatnonzero(counts == 0)]
    if empty and split.pictures == TRAINING:
        raise InputError(
            f"{dataset / 'train'} holds no image of class {', '.join(empty[:10])}: leave the class out of dataset.json "
            "and number the labels anew, or add images of it"
        )
    return split
