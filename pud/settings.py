"""The settings of the steps as a pipeline's parameters name them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pud.config import from_mapping
from pud.detection import DetectConfig
from pud.errors import InputError
from pud.probing import ProbeConfig
from pud.purification import purify_config
from pud.robustness import EvaluateConfig
from pud.training import TrainConfig

BUILD: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "train_settings": partial(from_mapping, TrainConfig),
    "probe_settings": partial(from_mapping, ProbeConfig),
    "detect_settings": partial(from_mapping, DetectConfig),
    "purify_settings": purify_config,
    "evaluate_settings": partial(from_mapping, EvaluateConfig),
}


def check_settings(parameters: Mapping[str, Any]) -> None:
    """Check the settings among a pipeline's parameters, before anything is spent.

    Raises:
        InputError: one whose name, type or range its step would refuse.
    """
    for name, build in BUILD.items():
        given = parameters.get(name, {})
        if not isinstance(given, Mapping):
            raise InputError(f'{name} is {given!r}: give settings by name, such as {{"batch_size": 64}}')
        build(given)
