"""The contract of all classifiers: images (n, c, h, w) in [0, 1] in, logits (n, classes) out, the normaliser inside."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from pud.base.errors import InputError

M = TypeVar("M", bound=nn.Module)
NORMALISER = ("mean", "std")
KEPT_SHARE = 0.1  # of the weights: a factory may set few ones itself, as an embedding of positions, without a draw


class Factory(Protocol):
    """Makes a network for images of shape (c, h, w), its weights drawn by torch's global random numbers.

    The network takes images (n, c, h, w), however normalised, and gives logits (n, classes).
    """

    def __call__(self, input_shape: Sequence[int], classes: int) -> nn.Module: ...


def channels_last(model: M) -> M:
    """Lay the weights out as the convolutions here run fastest; returns the same model."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs


class Classifier(nn.Module):
    """Any network whose last layer is linear, with its normaliser inside.

    The last linear layer is taken out of the network and called ``head``; the network without it gives the features.

    Args:
        factory: makes the network, of which the weights are drawn by ``seed`` alone.
        input_shape: (c, h, w) of one image.
        classes: number of logits.
        mean, std: normalisation of each channel of pixels in [0, 1]; c numbers each, or one for all channels.
        name: what messages call the network.

    Raises:
        InputError: the factory makes no such network.
    """

    mean: Tensor
    std: Tensor
    network: nn.Module
    head: nn.Linear

    def __init__(
        self,
        factory: Factory,
        input_shape: Sequence[int],
        classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        seed: int = 0,
        name: str = "",
    ) -> None:
        super().__init__()
        self.factory, self.input_shape = factory, tuple(input_shape)
        self.name = name or getattr(factory, "__name__", "the network")
        _check_shape(self.input_shape, mean, std)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        with torch.random.fork_rng(devices=[]):
            self.network = self._draw(classes, seed)
            self.head_name, self.head = _take_head(self.network, self.input_shape, classes, self.name)
        channels_last(self)

    @property
    def classes(self) -> int:
        """The number of logits."""
        return self.head.out_features

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the last linear layer, (n, d), for images (n, c, h, w) in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def rebuild(self, seed: int) -> "Classifier":
        """Return a new network of the same kind on the same device, in training mode: nothing learned is in it.

        Raises:
            InputError: the factory draws no new weights, so that what they once learned would come back.
        """
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        fresh = Classifier(self.factory, self.input_shape, self.classes, mean, std, seed=seed, name=self.name)
        with torch.random.fork_rng(devices=[]):
            other = dict(self._draw(self.classes, seed + 1).named_parameters())
        names = fresh.names_in_network()
        drawn = [(one, other[names[key]]) for key, one in fresh.named_parameters() if one.min() < one.max()]
        kept = sum(one.numel() for one, two in drawn if torch.equal(one, two))
        if kept > KEPT_SHARE * sum(one.numel() for one, _ in drawn):
            raise InputError(
                f"{self.name} starts with the same weights whatever the seed: make it draw new ones at every call, "
                "and load none from a file"
            )
        return fresh.to(self.mean.device)

    def names_in_network(self) -> dict[str, str]:
        """Return {name here: name in the network as its factory makes it} of parameters and buffers.

        The normaliser's, ``mean`` and ``std``, are of no network and stay as they are.
        """
        places = {"network.": "", "head.": f"{self.head_name}."}
        return {
            name: next(
                (place + name.removeprefix(here) for here, place in places.items() if name.startswith(here)), name
            )
            for name in self.state_dict()
        }

    def _draw(self, classes: int, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        with _foreign(f"{self.name} cannot be made for images of shape {self.input_shape} and {classes} classes"):
            network = self.factory(input_shape=self.input_shape, classes=classes)
        if not isinstance(network, nn.Module):
            raise InputError(
                f"{self.name} makes {type(network).__name__}, no torch.nn.Module: return the network itself"
            )
        if taken := sorted(network.state_dict().keys() & set(NORMALISER)):
            raise InputError(
                f"{self.name} has a weight of its own called {taken[0]}, the name of the normaliser's: rename it, and "
                "leave normalisation to the mean and std of the model"
            )
        return network


def _check_shape(input_shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]) -> None:
    if len(input_shape) != 3 or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise InputError(f"images of shape {list(input_shape)}: give channels, height and width, each at least 1")
    if len(mean) not in (1, input_shape[0]) or len(std) not in (1, input_shape[0]):
        raise InputError(
            f"{len(mean)} means and {len(std)} standard deviations for {input_shape[0]} channels: give one for each"
        )


@contextmanager
def _foreign(failure: str) -> Iterator[None]:
    """Turn whatever a network's own code raises into a sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{failure} ({reason}): choose another architecture or another size of images") from error


@torch.no_grad()
def _take_head(network: nn.Module, input_shape: tuple[int, ...], classes: int, name: str) -> tuple[str, nn.Linear]:
    """Put an identity in the place of a network's last linear layer; return the layer's name and the layer.

    The network is tried on two images, as it is in evaluation and as it trains, and once more without its head.

    Raises:
        InputError: it does not take such images, or its logits do not come straight from a linear layer.
    """
    failure = f"{name} does not take images of shape {input_shape}"
    images = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    with _foreign(failure):
        trained = copy.deepcopy(network).train()(images)
    network.eval()
    with _foreign(failure), _recorded(network) as calls:
        logits = network(images)
    for output in (trained, logits):
        if not isinstance(output, Tensor) or output.ndim != 2:
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"{name} gives {given} for two images: it must give logits of shape (2, {classes})")
        if output.shape != (2, classes):
            raise InputError(
                f"{name} gives {output.shape[1]} logits, there are {classes} classes: let its factory take the number"
            )
    heads = [layer for layer, output in calls if output.data_ptr() == logits.data_ptr()]
    if len(heads) != 1 or not heads[0] or sum(layer == heads[0] for layer, _ in calls) > 1:
        last = f"the last torch.nn.Linear is {calls[-1][0]}" if calls else "it has no torch.nn.Linear"
        raise InputError(
            f"{name} does not take its logits straight from a linear layer ({last}): end it with one that is used "
            "once, and with nothing behind it"
        )
    parent, _, own = heads[0].rpartition(".")
    head = network.get_submodule(heads[0])
    assert isinstance(head, nn.Linear)
    setattr(network.get_submodule(parent), own, nn.Identity())
    with _foreign(failure):
        again = head(network(images))
    if not torch.allclose(again, logits, rtol=1e-4, atol=1e-5):
        raise InputError(f"{name} changes what its last linear layer {heads[0]} gives: let that layer give the logits")
    network.train()
    return heads[0], head


@contextmanager
def _recorded(network: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Yield a list that takes up the name and the output of every linear layer of a network, as they are called."""
    calls: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: calls.append((name, output)))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
