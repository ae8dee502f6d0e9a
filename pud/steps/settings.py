"""The settings of the steps as a pipeline's parameters name them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pud.base.errors import InputError, without_userinfo

TRACKING: dict[str, type] = dict.fromkeys(("uri", "experiment", "run_key", "name"), str) | {"off": bool}


def check_settings(parameters: Mapping[str, Any]) -> None:
    """Check the settings among a pipeline's parameters, before anything is spent.

    Raises:
        InputError: one whose name, type or range its step would refuse.
    """
    for name, build in _builders(parameters).items():
        given = parameters.get(name, {})
        if not isinstance(given, Mapping):
            raise InputError(f'{name} is {given!r}: give settings by name, such as {{"batch_size": 64}}')
        build(given)
    if formats := parameters.get("formats"):
        from pud.exchange.export import check_formats

        check_formats(formats)
    if "registered_name" in parameters:
        from pud.reporting.gates import check_name

        check_name(parameters["registered_name"])
    check_tracking(parameters.get("tracking", {}))


def check_tracking(given: Any) -> None:
    """Check the parameter ``tracking``; no sentence shows a value, which may hold a password.

    Raises:
        InputError: no mapping, an unknown key, a value of another type, or an address with a name or password.
    """
    if not isinstance(given, Mapping):
        raise InputError('tracking is no mapping: give {"experiment": "pud"}, or {} for the cluster\'s own server')
    if unknown := sorted(map(str, given.keys() - TRACKING.keys())):
        raise InputError(f"tracking has no setting {', '.join(unknown)}: choose from {', '.join(TRACKING)}")
    for name, value in given.items():
        if not isinstance(value, TRACKING[name]):
            wanted = "true or false" if TRACKING[name] is bool else "a string"
            raise InputError(f"tracking.{name} is of type {type(value).__name__}: give {wanted}")
    uri = given.get("uri", "")
    if without_userinfo(uri) != uri:
        raise InputError(
            "tracking.uri has a name or password in it, and Kubeflow keeps parameters: give the address alone, and put "
            "both in the secret pud-tracking-credentials, as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )


def _builders(parameters: Mapping[str, Any]) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """Return what builds each step's settings; torch takes two seconds, and the exit task needs none of it."""
    from pud.adversarial.robustness import EvaluateConfig
    from pud.attacks import attack_config
    from pud.attacks.poisoning import PoisonConfig
    from pud.base.config import from_mapping
    from pud.defences import defence_settings
    from pud.detectors import detector_settings
    from pud.evidence.probing import ProbeConfig
    from pud.exchange.models import ModelConfig
    from pud.models.training import TrainConfig
    from pud.reporting.gates import GateConfig

    return {
        "attack_settings": partial(attack_config, parameters.get("attack") or PoisonConfig.attack),
        "model_settings": partial(from_mapping, ModelConfig),
        "train_settings": partial(from_mapping, TrainConfig),
        "probe_settings": partial(from_mapping, ProbeConfig),
        "detect_settings": detector_settings,
        "purify_settings": defence_settings,
        "evaluate_settings": partial(from_mapping, EvaluateConfig),
        "gate_settings": partial(from_mapping, GateConfig),
    }
