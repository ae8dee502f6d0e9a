"""Steps that a GPU repeats without waiting for the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor

from pud.base.progress import say

WARM_UP = 3  # steps that run as they are, in which libraries choose their algorithms and optimisers make their buffers


class CapturedStep:
    """A step of training, captured once as a CUDA graph and then replayed: its hundreds of kernels start as one.

    On a CPU, and where capturing fails, which is said, the step runs as it is. A step reads its inputs, changes tensors
    in place, returns nothing, draws no random numbers, and does not look at values on the device.
    """

    def __init__(self, step: Callable[..., None], device: torch.device, *, capture: bool = True) -> None:
        self.step, self.capture = step, capture and device.type == "cuda"
        self.runs = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []

    def __call__(self, *inputs: Tensor) -> None:
        """Run the step on inputs whose shapes are those of the first call."""
        if not self.capture:
            self.step(*inputs)
        elif self.graph is not None:
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            self.graph.replay()
        elif self.runs < WARM_UP:
            self.runs += 1
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self.step(*inputs)
            torch.cuda.current_stream().wait_stream(aside)
        else:
            self._begin(*inputs)

    def _begin(self, *inputs: Tensor) -> None:
        """Capture the step, and run it for the first time from its graph."""
        self.inputs, graph = [one.clone() for one in inputs], torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.step(*self.inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            say(f"this network cannot be captured as a CUDA graph ({reason}): it goes on without, more slowly")
            self.capture = False
            self.step(*inputs)
        else:
            self.graph = graph
            graph.replay()
