"""``.pt2``, what ``torch.export.save`` writes: an archive of a computation and its weights.

``torch.export.load`` unpickles what the archive says is pickled, so it is not used: the weights are read from their
records, plain numbers that a JSON file describes. The computation is not; they must fit a network that has a name.
"""

import io
import json
import logging
import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from pud.artifacts.model import MAXIMUM_BYTES
from pud.base.errors import InputError
from pud.base.files import MAXIMUM_JSON_BYTES, is_full
from pud.exchange.weights import Weights
from pud.exchange.weights.checkpoint import load_plain, write_packed

NAME = "torch.export"
FOLDER, CONFIG = "data/weights/", "_weights_config.json"
# numbers of torch's ScalarType as the archive has them
KINDS = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


class Exported:
    """Reads and writes ``.pt2``."""

    def reads(self, path: Path) -> bool:
        """Tell whether a file is an archive that says it is one."""
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/archive_format") for name in archive.namelist())

    def read(self, path: Path) -> Weights:
        """Return the weights of the one model in an archive."""
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(one.file_size for one in archive.infolist()) > MAXIMUM_BYTES:
                    raise InputError(f"{path} is larger unpacked than any network here: do not use it")
                tensors = _weights(archive, path)
        except InputError:
            raise
        except Exception as error:  # what a stranger's bytes lead to is not for us to list
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"{path} cannot be read ({reason}): export the model again, or save its state_dict"
            ) from error
        return Weights(tensors, NAME, (), {})

    def write(self, path: Path, weights: Weights, network: nn.Module, images: Tensor) -> None:
        """Export the network, which holds the weights, for any number of images."""
        with traced(path):
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.export.export(network, (images,), dynamic_shapes=shapes)
            write_packed(lambda file: torch.export.save(program, file), path)


@contextmanager
def traced(path: Path) -> Iterator[None]:
    """Turn what torch's exporters raise into a sentence, and keep what they say along the way from the person."""
    logging.disable(logging.WARNING)
    try:
        with torch.no_grad(), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # of a network's own code, and of compilers
        if isinstance(error, InputError) or is_full(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{path.name} cannot be made, for torch cannot trace this network ({reason}): take its weights"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _weights(archive: zipfile.ZipFile, path: Path) -> dict[str, Tensor]:
    names = [name for name in archive.namelist() if f"/{FOLDER}" in name and name.endswith(CONFIG)]
    if len(names) != 1:
        raise InputError(
            f"{path} holds {len(names)} models with weights, where one is needed (what is compiled has none): save the "
            "model's state_dict"
        )
    if archive.getinfo(names[0]).file_size > MAXIMUM_JSON_BYTES:
        raise InputError(f"{path} says more of its weights than any network here has: do not use it")
    folder = names[0].rpartition("/")[0]
    entries = json.loads(archive.read(names[0]))["config"]
    return {name: _tensor(archive, f"{folder}/{entry['path_name']}", entry, path) for name, entry in entries.items()}


def _tensor(archive: zipfile.ZipFile, record: str, entry: dict[str, Any], path: Path) -> Tensor:
    """Return one weight; a tensor of a kind of its own is pickled, and read as ``torch.load`` reads weights."""
    file: IO[bytes]
    if entry["use_pickle"]:
        with archive.open(record) as file:
            return load_plain(file, path).detach()
    about = entry["tensor_meta"]
    sizes, strides = ([one["as_int"] for one in about[key]] for key in ("sizes", "strides"))
    kind, start = KINDS[about["dtype"]], about["storage_offset"]["as_int"]
    if not math.prod(sizes):
        return torch.zeros(sizes, dtype=kind)
    numbers = torch.frombuffer(bytearray(archive.read(record)), dtype=kind)
    return numbers.as_strided(sizes, strides, start)


FORMS = {NAME: Exported()}
