"""A stranger's model comes in: from a file of weights, or a folder of ours, to a classifier that knows its data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from pud.artifacts.model import ModelCard
from pud.base.errors import InputError
from pud.data.images import LabelledImages
from pud.exchange.sanity import Sanity
from pud.models.contract import Classifier
from pud.models.make import check_architecture

FORMAT = "pud-origin/1"
FILE = "origin.json"


@dataclass(frozen=True)
class ModelConfig:
    """What a file of weights does not say of its model; all that is left empty is found out, and said."""

    architecture: Annotated[str, "Empty: the one that the weights fit; see pud/models/make.py for names."] = ""
    classes: Annotated[tuple[str, ...], "In the order of the model's outputs. Empty: as in the data set."] = ()
    mean: Annotated[tuple[float, ...], "Of pixels from 0 to 1, red first. Empty: the usual ones are tried."] = ()
    std: Annotated[tuple[float, ...], "Of pixels from 0 to 1, red first. Empty: the usual ones are tried."] = ()
    bgr: Annotated[bool, "The model takes blue first, as OpenCV reads pictures."] = False

    def __post_init__(self) -> None:
        if self.architecture:
            check_architecture(self.architecture)
        if bool(self.mean) != bool(self.std):
            raise InputError("mean and std belong together: give both, or leave out both and let them be found out")
        if any(value <= 0 for value in self.std):
            raise InputError(f"std {list(self.std)} must be above 0: give the standard deviation of each channel")


@dataclass(frozen=True)
class Origin:
    """What a model was when it came, so that it can go back so: ``origin.json`` beside ``model.json``.

    Args:
        file, sha256: the name of its file, and its digest.
        architecture: as named by the user, or as found to fit.
        form, place, about: as in ``pud.exchange.weights.Weights``.
        prefix: what stands before the network's own name of every weight, ``module.`` and such.
        normaliser: {"mean" or "std": (name in the file, its shape)} where the file holds them.
        order: for each class of the data set, in its order, the number of the output that stood for it in the file.
        bgr: whether the network in the file takes blue first.
    """

    file: str
    sha256: str
    architecture: str
    form: str
    place: tuple[str, ...]
    prefix: str
    normaliser: dict[str, tuple[str, tuple[int, ...]]]
    order: tuple[int, ...]
    bgr: bool
    about: dict[str, str | int]


@dataclass(frozen=True)
class Received:
    """A model that came in: in evaluation mode, on the device; classes and channels are in the order of the data."""

    model: Classifier
    card: ModelCard
    origin: Origin
    sanity: Sanity


def receive_model(
    path: Path, split: LabelledImages, config: ModelConfig, *, seed: int, device: torch.device
) -> Received:
    """Return the model in a file of weights, or in a model folder of ours, that knows the training images in ``split``.

    Raises:
        InputError: the file cannot be read or used, fits no architecture (the nearest is named), belongs to other
            data, or the model is at chance; the sentence names the setting that mends it, where one does.
    """
    raise NotImplementedError


def save_origin(folder: Path, origin: Origin) -> None:
    """Write ``origin.json`` into a model folder."""
    raise NotImplementedError


def load_origin(folder: Path) -> Origin | None:
    """Return what ``save_origin`` wrote, None for a model that was made here.

    Raises:
        InputError: the file is corrupt.
    """
    raise NotImplementedError
