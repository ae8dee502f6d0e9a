"""Safetensors: a header in JSON, then plain numbers. Nothing in it can run."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pud.base.errors import InputError
from pud.exchange.weights import Weights

NAME = "safetensors"


class Safetensors:
    """Reads and writes ``.safetensors``."""

    def reads(self, path: Path) -> bool:
        """Tell whether a file begins with the length of a header, and the header."""
        with path.open("rb") as file:
            start = file.read(9)
        return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size

    def read(self, path: Path) -> Weights:
        """Return the weights."""
        try:
            return Weights(load_file(path), NAME, (), {})
        except (SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"{path} is corrupt ({error}): get it again") from error

    def write(self, path: Path, weights: Weights, network: nn.Module, images: Tensor) -> None:
        """Write the weights alone."""
        save_file(weights.tensors, path, metadata={"format": "pt"})


FORMS = {NAME: Safetensors()}
