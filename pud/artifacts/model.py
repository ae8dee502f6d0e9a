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
from torch import Tensor, nn

from pud.base.errors import InputError
from pud.base.files import read_json, sha256, within, write_json
from pud.models.classifier import ResNet, make_model

FORMAT = "pud-model/1"
MAXIMUM_BYTES = 8 << 30  # of the weights: an untrusted file must not fill the memory
MAXIMUM_VALUES = 1 << 24  # of an image, for the same reason
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

    def build(self, seed: int = 0) -> ResNet:
        """Return a freshly initialised model of this kind."""
        return make_model(self.architecture, self.input_shape, len(self.classes), self.mean, self.std, seed=seed)


def save_weights(path: Path, model: nn.Module) -> None:
    """Write the parameters and buffers of a model, contiguous and on the CPU.

    Raises:
        InputError: they are not finite, for training has diverged.
    """
    if unusable := _unusable(model.state_dict()):
        raise InputError(f"training has diverged (weight {unusable} is not finite): choose a lower learning rate")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, path)


def _unusable(tensors: dict[str, Tensor]) -> str | None:
    """Return the name of a tensor with which no model can compute, if there is one."""
    for name, tensor in tensors.items():
        below = tensor <= 0 if name == "std" else tensor < 0
        if not torch.isfinite(tensor).all() or (name.endswith(("std", "running_var")) and below.any()):
            return name
    return None


def _normaliser(model: nn.Module) -> dict[str, Tensor]:
    """Return the mean and standard deviation by which a model was built: weights from elsewhere may lack them."""
    return {name: buffer.clone() for name, buffer in model.named_buffers(recurse=False) if name in ("mean", "std")}


def load_weights(path: Path, model: nn.Module) -> None:
    """Read parameters and buffers into ``model``.

    Raises:
        InputError: the file is missing, too large, corrupt, of another architecture, or its numbers are not finite.
    """
    try:
        tensors = {**_normaliser(model), **load_file(within(path, MAXIMUM_BYTES))}
        unusable = _unusable(tensors)
        if not unusable:
            model.load_state_dict(tensors)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: the folder is incomplete, make it again") from error
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(map(str.strip, str(error).splitlines()[:2]))
        raise InputError(
            f"{path} is corrupt or not of the architecture in model.json ({reason}): make it again"
        ) from error
    if unusable:
        raise InputError(
            f"{path}: weight {unusable} holds NaN, infinity or a variance below 0: this model cannot be used"
        )


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write a model folder."""
    save_weights(folder / "model.safetensors", model)
    digest = sha256(folder / "model.safetensors")
    write_json(folder / "model.json", {"format": FORMAT, "sha256": digest, **dataclasses.asdict(card)})


def load_model(folder: Path, device: torch.device) -> tuple[ResNet, ModelCard]:
    """Read a model folder; the model is in evaluation mode, channels last, on ``device``.

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
        model = card.build()
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder / 'model.json'} describes no model ({error}): write it as the README shows"
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
