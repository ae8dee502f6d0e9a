"""Safetensors: a header in JSON, then plain numbers. Nothing in it can run."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pud.base.errors import InputError
from pud.exchange.weights import Weights

NAME = "safetensors"
LIBRARY = "format"  # names it in a file, without which some libraries read none
LONGEST = 20  # characters of that


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
            with safe_open(path, "pt") as file:
                said = (file.metadata() or {}).get(LIBRARY)
            return Weights(load_file(path), NAME, (), {LIBRARY: said[:LONGEST]} if said else {})
        except (SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"{path} is corrupt ({error}): get it again") from error

    def write(self, path: Path, weights: Weights, network: nn.Module, images: Tensor) -> None:
        """Write the weights, and which library they are of, if the file said it."""
        save_file(weights.tensors, path, metadata={name: str(value) for name, value in weights.about.items()} or None)


FORMS = {NAME: Safetensors()}
