"""Where and how tensors are computed: the device, the training precision, the process settings, the random streams."""

import ctypes
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pud.base.config import MAXIMUM_WHOLE
from pud.base.errors import InputError
from pud.base.processes import join

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc malloc.h


def resolve_device(name: str = "auto") -> torch.device:
    """Return the torch device called ``name``; ``auto`` takes the GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.empty(0, device=name)
        probe.cpu()  # what holds no values, as meta, computes nothing
        return probe.device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} is not usable here ({error}): choose auto, cpu or cuda") from error


def prepare_process() -> None:
    """Set what makes torch fast in this process, and join those that torchrun started; call before any tensor work.

    Denormal numbers are flushed (ten times slower otherwise late in unlearning), and glibc keeps freed activations
    instead of returning their pages to the system after every layer.
    """
    join()
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def autocast(device: torch.device) -> torch.autocast:
    """Return the training autocast: bfloat16 where the hardware computes in it, plain float32 elsewhere."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Let torch's global numbers, from which dropout draws, come from ``generator``; they are restored afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        yield


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that is negative, or that would become another on its way through a pipeline."""
    if not 0 <= seed <= MAXIMUM_WHOLE:
        raise InputError(f"seed {seed} cannot be: give a whole number from 0 to 2^53")


def random_stream(seed: int, step: str, round_index: int = 0) -> torch.Generator:
    """Return a CPU generator that depends on (seed, step, round) and on nothing that ran before."""
    check_seed(seed)
    words = np.random.SeedSequence((seed, zlib.crc32(step.encode()), round_index)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
