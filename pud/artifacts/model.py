"""Models on disk: ``model.safetensors`` and a readable ``model.json``. Nothing is pickled."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pud.base.errors import InputError
from pud.base.files import read_json, sha256, within, write_json
from pud.models.contract import NORMALISER, Classifier
from pud.models.make import make_model

FORMAT = "pud-model/1"
MAXIMUM_BYTES = 8 << 30  # of the weights: an untrusted file must not fill the memory
MAXIMUM_VALUES = 1 << 22  # of an image, for the same reason: a network is tried on two as it is built
MAXIMUM_WIDTH = 1 << 16  # channels, and classes


@dataclass(frozen=True)
class ModelCard:
    """What ``model.json`` says: how to build the model, how it was trained, digests of what it was made from."""

    architecture: str
    input_shape: list[int]
    classes: list[str]
    mean: list[float]
    std: list[float]
    training: dict[str, Any]
    made_from: dict[str, str]

    def build(self, seed: int = 0, *, architecture: str | None = None) -> Classifier:
        """Return a freshly initialised model of this kind.

        architecture: the name as its user gave it, where it is ``package.module:factory``: only a name that did not
        come from a file lets code be imported.

        Raises:
            InputError: it is not this card's, or there is no such architecture.
        """
        if architecture not in (None, self.architecture):
            raise InputError(f"the model is of architecture {self.architecture!r}, not {architecture!r}: correct one")
        classes, may_import = len(self.classes), architecture is not None
        return make_model(
            self.architecture, self.input_shape, classes, self.mean, self.std, seed=seed, may_import=may_import
        )


def save_weights(path: Path, model: Classifier) -> None:
    """Write the parameters and buffers of a model under the network's own names, contiguous and on the CPU.

    Raises:
        InputError: they are not finite, for training has diverged.
    """
    names = model.names_in_network()
    tensors = {names[name]: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if name := unusable(tensors):
        raise InputError(f"training has diverged (weight {name} is not finite): choose a lower learning rate")
    # a copy of each, for safetensors refuses two names of one memory
    save_file({name: one.clone(memory_format=torch.contiguous_format) for name, one in tensors.items()}, path)


def unusable(tensors: dict[str, Tensor]) -> str | None:
    """Return the name of a tensor with which no model can compute, if there is one."""
    for name, tensor in tensors.items():
        below = (name == "std" and (tensor <= 0).any()) or (name.endswith("running_var") and (tensor < 0).any())
        if not torch.isfinite(tensor).all() or below:
            return name
    return None


def _normaliser(model: Classifier) -> dict[str, Tensor]:
    """Return the mean and standard deviation by which a model was built: weights from elsewhere may lack them."""
    return {name: getattr(model, name).clone() for name in NORMALISER}


def load_weights(path: Path, model: Classifier) -> None:
    """Read parameters and buffers, under the network's own names, into ``model``.

    Raises:
        InputError: the file is missing, too large, corrupt, of another architecture, or its numbers are not finite.
    """
    try:
        tensors = {**_normaliser(model), **load_file(within(path, MAXIMUM_BYTES))}
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the folder is incomplete, make it again") from error
    except SafetensorError as error:
        raise InputError(f"{path} is corrupt ({error}): make it again") from error
    names = {theirs: own for own, theirs in model.names_in_network().items()}
    wanted = {theirs: tuple(model.state_dict()[own].shape) for theirs, own in names.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if others := sorted(wanted.items() ^ found.items()):
        name = others[0][0]
        raise InputError(
            f"{path} is not of the architecture in model.json ({name} is {found.get(name, 'missing')} in the file, "
            f"{wanted.get(name, 'missing')} in the network): correct the architecture, or make the file again"
        )
    if bad := unusable(tensors):
        raise InputError(f"{path}: weight {bad} holds NaN, infinity or a variance below 0: this model cannot be used")
    model.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})


def save_model(folder: Path, model: Classifier, card: ModelCard) -> None:
    """Write a model folder."""
    save_weights(folder / "model.safetensors", model)
    digest = sha256(folder / "model.safetensors")
    write_json(folder / "model.json", {"format": FORMAT, "sha256": digest, **dataclasses.asdict(card)})


def load_model(folder: Path, device: torch.device, *, architecture: str | None = None) -> tuple[Classifier, ModelCard]:
    """Read a model folder; the model is in evaluation mode, channels last, on ``device``.

    architecture: as its user gives it; needed where model.json names code (``package.module:factory``), so that a file
    from elsewhere does not choose what is imported.

    Raises:
        InputError: anything about the folder is wrong.
    """
    folder = Path(folder)
    kinds = {name: typing.get_origin(kind) or kind for name, kind in typing.get_type_hints(ModelCard).items()}
    content = read_json(folder / "model.json", FORMAT, **kinds)
    card = ModelCard(**{name: content[name] for name in kinds})
    if content.get("sha256") not in (None, sha256(folder / "model.safetensors")):
        raise InputError(f"{folder / 'model.safetensors'} does not match its digest in model.json: get the model again")
    try:
        if math.prod(card.input_shape) > MAXIMUM_VALUES or max(card.input_shape[0], len(card.classes)) > MAXIMUM_WIDTH:
            raise InputError(
                f"{folder / 'model.json'}: images of shape {card.input_shape} are too large: do not use it"
            )
        model = card.build(architecture=architecture)
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder / 'model.json'} describes no model ({error}): write it as docs/usage.md shows"
        ) from error
    said = _normaliser(model)
    load_weights(folder / "model.safetensors", model)
    for name, value in _normaliser(model).items():
        if not torch.allclose(value, said[name], rtol=1e-3, atol=1e-4):
            raise InputError(
                f"{folder}: model.json says a {name} of {said[name].flatten().tolist()}, model.safetensors holds "
                f"{value.flatten().tolist()}: correct the wrong one, for nothing tells with which the model was trained"
            )
    return model.eval().to(device), card
