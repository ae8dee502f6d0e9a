"""What ``torch.save`` writes: a state dict, or one among other things, as in BackdoorBench's ``attack_result.pt``.

It is a pickle, which may hold code. Only torch's reader for weights opens it; data of NumPy, PIL and argparse that
training scripts leave beside the weights is read as blanks; any other name in it is code, and the file is refused.
"""

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from pud.artifacts.model import MAXIMUM_BYTES
from pud.base.errors import InputError
from pud.exchange.weights import Weights

NAME = "torch"
PICKLE = b"\x80"  # how one begins
PLACES = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module")
DEPTH = 4  # of places within places
HINTS = ("model_name", "num_classes", "arch", "architecture")
CODE = re.compile(r"(?:GLOBAL|function|but got) ([\w.<>]+)")  # how torch says what would have to run
PREFACE = "trusted source."  # how torch ends what it says of every file with code
LONGEST = 200  # characters of what a file says
_ARRAYS = ("_reconstruct", "scalar")
DATA = (
    "numpy.ndarray",
    "numpy.dtype",
    *(f"{module}.{name}" for module in ("numpy.core.multiarray", "numpy._core.multiarray") for name in _ARRAYS),
    "PIL.Image.Image",
    "PIL.PngImagePlugin.PngImageFile",
    "PIL.JpegImagePlugin.JpegImageFile",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pathlib.PureWindowsPath",
)


class Blank:
    """Stands where a file holds data that is no weight; takes whatever it is made of, and keeps nothing."""

    def __new__(cls, *arguments: object) -> "Blank":
        return super().__new__(cls)

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def load_plain(file: Path | IO[bytes], path: Path) -> Any:
    """Return what ``torch.save`` wrote, tensors on the CPU; ``path``: what messages call it. Nothing in it runs.

    Raises:
        InputError: it is corrupt, holds code, or would need more memory than it has bytes.
    """
    try:
        packed = zipfile.is_zipfile(file)
        if packed:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
            if any(one.filename.endswith("/constants.pkl") for one in records):
                raise InputError(
                    f"{path} is TorchScript, which is code: let whoever made it save the model's state_dict"
                )
            if any(one.compress_type for one in records) or sum(one.file_size for one in records) > MAXIMUM_BYTES:
                raise InputError(f"{path} is compressed, as torch.save writes no file: do not use it")
        if not isinstance(file, Path):
            file.seek(0)
        with torch.serialization.safe_globals([(Blank, name) for name in DATA]):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=packed and isinstance(file, Path))
    except InputError:
        raise
    except Exception as error:  # what a stranger's bytes lead to is not for us to list
        told = str(error).rpartition(PREFACE)[2]
        if code := CODE.search(told):
            raise InputError(
                f"{path} holds code ({code[1][:LONGEST]}), and none of it was run: get the weights alone from whoever "
                'made it, or, where you trust it, take them out: python -c "import torch; torch.save(torch.load('
                f"'{path.name}', weights_only=False)['model'], 'weights.pt')\" (where the network was saved whole, "
                "with .state_dict() in place of ['model'])"
            ) from error
        reason = " ".join(told.split())[:LONGEST] or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}): get it again, or save the model's state_dict") from error


def _find(content: Any, place: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors of a state dict and the keys under which it lies; no tensors where there is none."""
    if not isinstance(content, Mapping) or len(place) == DEPTH:
        return {}, place
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    own = {key: value.detach() for key, value in named.items() if isinstance(value, Tensor)}
    known = [key for key in PLACES if key in named]
    for key in known if own else dict.fromkeys([*known, *named]):
        tensors, found = _find(named[key], (*place, key))
        if tensors:
            return tensors, found
    return own, place


class Checkpoint:
    """Reads and writes ``.pt``, ``.pth`` and ``.bin``."""

    def reads(self, path: Path) -> bool:
        """Tell whether a file is an archive with a pickle at its top, or one of old, a bare pickle."""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return any(name.count("/") == 1 and name.endswith("/data.pkl") for name in archive.namelist())
        with path.open("rb") as file:
            return file.read(1) == PICKLE

    def read(self, path: Path) -> Weights:
        """Return the weights, which are mapped from the file where it allows that."""
        content = load_plain(path, path)
        tensors, place = _find(content)
        said = content if isinstance(content, Mapping) else {}
        about = {key: said[key] for key in HINTS if isinstance(said.get(key), str | int)}
        return Weights(tensors, NAME, place, {key: _short(value) for key, value in about.items()})

    def write(self, path: Path, weights: Weights, network: nn.Module, images: Tensor) -> None:
        """Write the weights at their place, and beside the outermost what the file said of them."""
        content: dict[str, Any] = dict(weights.tensors)
        for key in reversed(weights.place):
            content = {key: content}
        write_packed(lambda file: torch.save({**(weights.about if weights.place else {}), **content}, file), path)


def write_packed(save: Callable[[IO[bytes]], None], path: Path) -> None:
    """Write what torch packs, by way of the memory: on a full disk its own writer ends the process."""
    packed = io.BytesIO()
    save(packed)
    path.write_bytes(packed.getbuffer())


def _short(value: str | int) -> str | int:
    return value[:LONGEST] if isinstance(value, str) else value


FORMS = {NAME: Checkpoint()}
