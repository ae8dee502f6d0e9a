"""What a defence is: one round takes a state and the images that it may use, and leaves a safer model in the state."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from pud.models.contract import Classifier


@dataclass
class State:
    """What a round hands to the next.

    student: the model; teacher: the slow average of it that steadies it. clean, accused: bool (n,), the training images
    that the last round trained on, and those accused in any round so far; an image in both was trained under the label
    that detection inferred. rounds_done: how many rounds both models have behind them.
    """

    student: Classifier
    teacher: Classifier
    clean: np.ndarray
    accused: np.ndarray
    rounds_done: int

    @classmethod
    def initial(cls, infected: Classifier, n: int) -> "State":
        """Return the state before the first round on n images: student and teacher are the infected model."""
        return cls(infected, copy.deepcopy(infected), np.zeros(n, bool), np.zeros(n, bool), 0)

    def replace_model(self, model: Classifier) -> None:
        """End a round that made its model without a teacher: the teacher is a copy of it."""
        self.student, self.teacher = model, copy.deepcopy(model)
        self.rounds_done += 1


class SelectionRule(NamedTuple):
    """What a defence asks for in a round.

    keep: share of each class's clean verdicts, the least suspicious first; relabel: whether it trains on accused images
    whose true label detection could infer.
    """

    keep: float
    relabel: bool


@dataclass(frozen=True)
class Selection:
    """What a round may do with each of n training images: an int64 and four Boolean arrays, (n,).

    labels: to train under, as given but where relabelled. clean: to train on. accused: now or in an earlier round.
    unlearned: accused images whose given label is to be forgotten. relabelled: clean ones whose label was inferred.
    """

    labels: np.ndarray
    clean: np.ndarray
    accused: np.ndarray
    unlearned: np.ndarray
    relabelled: np.ndarray

    @classmethod
    def of_clean_images(cls, labels: np.ndarray) -> "Selection":
        """Return the selection that trains on everything as it is labelled."""
        none = np.zeros(len(labels), bool)
        return cls(labels, ~none, none, none, none)


class Round(Protocol):
    """One round, in place on ``state``: it counts itself in ``rounds_done`` and leaves the student in evaluation mode.

    images: uint8 (n, c, h, w). selection: at least one image is clean. The state's own masks are set already.
    """

    def __call__(
        self,
        state: State,
        images: np.ndarray,
        selection: Selection,
        config: Any,
        *,
        generator: torch.Generator,
        device: torch.device,
    ) -> None: ...


@dataclass(frozen=True)
class Defence:
    """An entry of the registry.

    configure: a frozen config from settings by name; raises InputError for an unknown name or a wrong value. ask: what
    selection a config wants in a round, counted from 0. run: the round.
    """

    name: str
    configure: Callable[[Mapping[str, Any]], Any]
    ask: Callable[[Any, int], SelectionRule]
    run: Round
