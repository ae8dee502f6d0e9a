"""Several processes that compute one step together: ``torchrun`` starts them, here they share batches and gradients.

Every process draws the numbers of the whole batch and takes its part of the images; sums over the batch (batch norms,
gradients) are added up over all of them. So the result is that of one process, up to rounding. The first one writes.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

T = TypeVar("T")


def count() -> int:
    """Return how many processes compute together; 1 without ``torchrun``."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process among them, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def join() -> None:
    """Join the processes that ``torchrun`` started with this one, or wait until all have ended the step before.

    Nothing happens in a process of its own.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first one writes what all read in the next step
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl" if gpu else "gloo")


def own(whole: Tensor) -> Tensor:
    """Return this process's part of a batch, every ``count()``-th of it."""
    return whole[rank() :: count()] if count() > 1 else whole


def own_batches(order: Sequence[T]) -> list[tuple[int, T]]:
    """Return this process's batches of all, each with its index among all."""
    return list(enumerate(order))[rank() :: count()]


def gathered(*arrays: np.ndarray, device: torch.device) -> None:
    """Bring together, in place, arrays of which every process has filled its own rows and left zeros in the others'."""
    for array in arrays if count() > 1 else ():
        whole = torch.from_numpy(array).to(device)
        torch.distributed.all_reduce(whole)
        array[...] = whole.cpu().numpy()


def add_up(tensors: Iterable[Tensor | None]) -> None:
    """Replace tensors by their sums over all processes, in one message."""
    if count() > 1:
        found = [tensor for tensor in tensors if tensor is not None]
        flat = torch.cat([tensor.flatten() for tensor in found])
        torch.distributed.all_reduce(flat)
        for tensor, total in zip(found, flat.split([tensor.numel() for tensor in found]), strict=True):
            tensor.copy_(total.view_as(tensor))


class _SharedNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' images; for a GPU and for a CPU, which torch has not."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce  # a third of a second, of several processes only

        values, over = x.float(), [0, *range(2, x.dim())]
        here = torch.stack(
            [values.sum(over), values.square().sum(over), values.new_full((x.shape[1],), x[:, 0].numel())]
        )
        total, squares, number = all_reduce(here)
        mean = total / number
        variance = squares / number - mean.square()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance * number / (number - 1), self.momentum or 0.0)
        shape = (1, -1, *[1] * (x.dim() - 2))
        scale = self.weight * (variance + self.eps).rsqrt()
        return values * scale.view(shape) + (self.bias - mean * scale).view(shape)


@contextmanager
def shared_norms(model: nn.Module) -> Iterator[None]:
    """Let the batch norms of a model take the statistics of all processes' images while it trains."""
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d] if count() > 1 else []
    for norm in norms:
        norm.__class__ = _SharedNorm
    try:
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d
