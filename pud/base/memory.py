"""What to do when a GPU's memory is too small."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from pud.base.errors import InputError
from pud.base.progress import say

C = TypeVar("C")
T = TypeVar("T")


def halving_batches(run: Callable[[C], T], config: C) -> tuple[T, C]:
    """Return what ``run`` makes of a config, and the config: where a GPU lacks memory, one of half batches.

    A config is frozen and has a ``batch_size``. ``run`` is called again from the start, so it must begin from what no
    earlier call changed.

    Raises:
        InputError: not even one image fits.
    """
    given: Any = config
    while True:
        try:
            return run(given), given
        except torch.OutOfMemoryError as error:
            if given.batch_size == 1:
                raise InputError(
                    "the GPU's memory does not hold one image and this network: take a smaller network, a GPU of its "
                    "own, or device=cpu"
                ) from error
        torch.cuda.empty_cache()
        given = dataclasses.replace(given, batch_size=given.batch_size // 2)
        say(f"the GPU's memory is too small for these batches: begin again with batch_size {given.batch_size}")
