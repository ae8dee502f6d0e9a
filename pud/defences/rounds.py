"""One round of any defence: select, then run."""

from typing import Any

import numpy as np
import torch

from pud.base.progress import say
from pud.defences.contract import Defence, Selection, State
from pud.defences.selection import select, select_without_detection
from pud.detectors.contract import Detection


def run_round(
    defence: Defence,
    config: Any,
    state: State,
    images: np.ndarray,
    labels: np.ndarray,
    detection: Detection | None,
    *,
    generator: torch.Generator,
    device: torch.device,
) -> Selection:
    """Run the next round in place on ``state`` and return what it did with each uint8 image (n, c, h, w), label (n,).

    Without a detection every image is held to be clean. Where none is clean the model stays as it is.
    """
    keep, relabel = defence.ask(config, state.rounds_done)
    if detection:
        selection = select(detection, labels, state, keep, relabel)
    else:
        selection = select_without_detection(labels, state, keep)
    state.clean, state.accused = selection.clean, selection.accused
    if selection.clean.any():
        defence.run(state, images, selection, config, generator=generator, device=device)
    else:
        say(f"purify: no image is clean in round {state.rounds_done + 1}, the model stays as it is")
        state.rounds_done += 1
    return selection
