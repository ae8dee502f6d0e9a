"""Forms in which other people keep the weights of a network, one file each: a module offers ``FORMS = {name: form}``.

The first form by name that knows a file, from its content and not its name, reads it. No form runs what a file holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from pud.artifacts.model import MAXIMUM_BYTES
from pud.base.errors import InputError
from pud.base.files import within
from pud.base.registry import Registry


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Args:
        tensors: by the names that they have in the file.
        form: the name of the form.
        place: the keys under which the tensors lie in the file, from the outermost; empty where they are the file.
        about: what else the file says in plain words: ``model_name``, ``num_classes``, ``arch`` and such.
    """

    tensors: dict[str, Tensor]
    form: str
    place: tuple[str, ...]
    about: dict[str, str | int]


class Form(Protocol):
    """Reads and writes files of one form."""

    def reads(self, path: Path) -> bool:
        """Tell whether a file is of this form, from its content."""

    def read(self, path: Path) -> Weights:
        """Return the weights in a file, on the CPU.

        Raises:
            InputError: the file is corrupt, holds code, or no weights.
        """

    def write(self, path: Path, weights: Weights, network: nn.Module, images: Tensor) -> None:
        """Write weights as they were read: under the same names, at the same place.

        network, images: what holds these weights under the same names, and what it takes, for a form that keeps the
        computation too.
        """


FORMS: Registry[Form] = Registry("pud.exchange.weights", "FORMS", "form of weights")


def read_weights(path: Path) -> Weights:
    """Return the weights in a file of any form.

    Raises:
        InputError: the file is missing, too large, of no known form, corrupt, or holds code or no weights.
    """
    try:
        within(path, MAXIMUM_BYTES)
        forms = FORMS.entries()
        form = next((one for one in forms.values() if one.reads(path)), None)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name the file of the model's weights") from error
    if form is None:
        raise InputError(
            f"{path} is no file of weights that is known here ({', '.join(forms)}): save the model's state_dict with "
            "safetensors or torch.save"
        )
    weights = form.read(path)
    _check(weights.tensors, path)
    return weights


def _check(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError for tensors that are no plain weights, or of which a small file claims too many."""
    if not tensors:
        raise InputError(f"{path} holds no weights: save the model's state_dict")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise InputError(
                f"{path}: weight {name} is sparse, quantised, complex or empty: save the weights as plain numbers"
            )
    if (size := sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())) > MAXIMUM_BYTES:
        raise InputError(f"{path} claims to hold {size:,} bytes of weights, more than any network here: do not use it")
