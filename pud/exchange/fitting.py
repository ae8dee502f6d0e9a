"""Which network do these weights belong to? Found by names and shapes alone, without drawing a weight."""

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pud.base.errors import InputError
from pud.base.progress import track
from pud.models.contract import NORMALISER
from pud.models.make import ARCHITECTURES, find_factory

Shapes = Mapping[str, tuple[int, ...]]
COUNTS = "num_batches_tracked"  # of batch norms: old files lack them, and no logit depends on them


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file are those of a network.

    Args:
        prefix: what stands in the file before every name in the network.
        normaliser: {"mean" or "std": name in the file} where it holds a normaliser beside the network.
        missing, other: names in the network without a tensor; names in the file without a place, as they are there.
        misshapen: {name in the network: (shape in the file, shape in the network)}.
        share: of all names in either, those that are in both with the same shape.
    """

    prefix: str
    normaliser: dict[str, str]
    missing: tuple[str, ...]
    other: tuple[str, ...]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    share: float

    @property
    def exact(self) -> bool:
        """Whether every weight has its place."""
        return not (self.missing or self.other or self.misshapen)

    def reason(self, classes: int) -> str:
        """Return one thing that does not fit, in words, for a network of so many classes."""
        more = len(self.missing) + len(self.other) + len(self.misshapen) - 1
        also = f", and {more} more" if more else ""
        for name, (theirs, ours) in self.misshapen.items():
            if theirs[1:] == ours[1:] and ours[:1] == (classes,) and not self.missing and not self.other:
                return f"it tells {theirs[0]} classes apart, the data set has {classes}"
            return f"{name} is {list(theirs)} in the file, {list(ours)} in the network{also}"
        if self.missing:
            return f"{self.missing[0]} is missing in the file{also}"
        return f"{self.other[0]!r} in the file has no place in the network{also}"


def fit(found: Shapes, network: Shapes, channels: int) -> Fit:
    """Return how tensors of these shapes are those of a network for images of so many channels."""
    prefixes: Counter[str] = Counter()
    for name in found:
        starts = [0, *(index + 1 for index, letter in enumerate(name) if letter == ".")]
        prefixes.update(name[:start] for start in starts if name[start:] in network)
    prefix = max(prefixes, key=lambda one: (prefixes[one], -len(one)), default="")
    taken = {name.removeprefix(prefix): shape for name, shape in found.items() if name.startswith(prefix)}
    missing = [name for name in network if name not in taken]
    other = [name for name in found if not name.startswith(prefix) or name.removeprefix(prefix) not in network]
    normaliser = {
        kind: name
        for kind in NORMALISER
        for name in other
        if name.rpartition(".")[2] == kind and torch.Size(found[name]).numel() in (1, channels)
    }
    misshapen = {name: (taken[name], shape) for name, shape in network.items() if taken.get(name, shape) != shape}
    common = len(network) - len(missing) - len(misshapen)
    return Fit(
        prefix,
        normaliser if len(normaliser) == len(NORMALISER) else {},
        tuple(name for name in missing if not name.endswith(COUNTS)),
        tuple(name for name in other if name not in normaliser.values() or len(normaliser) < len(NORMALISER)),
        misshapen,
        common / max(len(found.keys()) + len(network) - common, 1),
    )


def shapes_of(architecture: str, input_shape: Sequence[int], classes: int, *, may_import: bool = False) -> Shapes:
    """Return the shape of every parameter and buffer of a network, of which none takes memory.

    Raises:
        InputError: there is no such network, or it cannot be made for such images.
    """
    factory = find_factory(architecture, may_import=may_import)
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network = factory(input_shape=input_shape, classes=classes)
        return shapes(network.state_dict())
    except Exception as error:  # a network's own code raises what it likes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{architecture} cannot be made for images of shape {tuple(input_shape)} and {classes} classes ({reason}): "
            "choose another architecture or another size of images"
        ) from error


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return the shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def nearest(found: Shapes, input_shape: Sequence[int], classes: int, hints: Sequence[str] = ()) -> tuple[str, Fit]:
    """Return the network by name, of those that are known here, to which tensors of these shapes belong most likely.

    hints: what the file says of itself, ``resnet18``; networks of these names come first, those of timm only so.
    """
    best: tuple[str, Fit] | None = None
    for name in track(list(_candidates(hints)), "look for the architecture"):
        try:
            one = fit(found, shapes_of(name, input_shape, classes), input_shape[0])
        except InputError:
            continue  # not for such images
        if best is None or one.share > best[1].share:
            best = name, one
        if one.exact:
            break
    assert best is not None  # those that are built in take all images
    return best


def _candidates(hints: Sequence[str]) -> Iterator[str]:
    """Yield names of networks, each once: built in, torchvision's, timm's; those that a hint names go first."""
    known = {"": ARCHITECTURES.names(), "torchvision:": _library("torchvision.models"), "timm:": _library("timm")}
    names = [place + name for place, ones in known.items() for name in ones]
    hinted = [name for name in names if name.partition(":")[2] in hints or name in hints]
    yield from dict.fromkeys([*hinted, *(name for name in names if not name.startswith("timm:"))])


def _library(module: str) -> list[str]:
    """Return the networks that classify pictures in a library; none where it is not installed, or does not start."""
    try:
        library = importlib.import_module(module)
    except (ImportError, OSError, RuntimeError):
        return []
    return library.list_models(module=library) if module == "torchvision.models" else library.list_models()
