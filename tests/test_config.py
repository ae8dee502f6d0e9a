"""Configs from loose values: what a pipeline hands over becomes the config's own types, and nothing is guessed."""

import json
from typing import Any

import pytest

from pud.adversarial.robustness import EvaluateConfig
from pud.attacks import ATTACKS
from pud.attacks.poisoning import PoisonConfig
from pud.base.config import as_parameters, from_mapping
from pud.base.errors import InputError
from pud.defences import DEFENCES
from pud.defences.pud import PurifyConfig
from pud.detectors import DETECTORS
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.steps.settings import check_settings

CONFIGS = [DetectConfig, EvaluateConfig, PoisonConfig, ProbeConfig, PurifyConfig, TrainConfig]


@pytest.mark.parametrize("cls", CONFIGS)
def test_nothing_given_is_the_default(cls: type) -> None:
    assert from_mapping(cls, {}) == cls()


@pytest.mark.parametrize("cls", CONFIGS)
def test_a_config_survives_the_trip_through_json(cls: type) -> None:
    assert from_mapping(cls, json.loads(json.dumps(as_parameters(cls())))) == cls()


@pytest.mark.parametrize("cls", CONFIGS)
def test_a_config_survives_a_pipeline_that_makes_every_number_a_float(cls: type) -> None:
    parameters = json.loads(json.dumps(as_parameters(cls())), parse_int=float)
    built = from_mapping(cls, parameters)
    assert built == cls()
    assert repr(built) == repr(cls())  # 3 and 3.0 are equal, yet only one of them is a number of steps


@pytest.mark.parametrize(
    ("cls", "values", "sentence"),
    [
        (TrainConfig, {"epoch": 3}, "has no setting epoch: choose from .*architecture"),
        (TrainConfig, {"architecture": "resnet9"}, "choose one of .*resnet18, resnet8"),
        (TrainConfig, {"epochs": 2.5}, "give a whole number"),
        (TrainConfig, {"epochs": "many"}, "give a value of type int"),
        (TrainConfig, {"epochs": None}, "give a value of type int"),
        (TrainConfig, {"learning_rate": [0.1]}, "give a value of type float"),
        (PurifyConfig, {"keep": 0.2}, "give a list"),
        (PurifyConfig, {"keep": "0.2"}, "give a list"),
        (PurifyConfig, {"keep": {"0": 0.2}}, "give a list"),
        (PurifyConfig, {"keep": [0.2, "all"]}, "give a value of type float"),
        (PurifyConfig, {"epochs": [1, 1.5]}, "give a whole number"),
        (PurifyConfig, {"keep": [0.2, -1]}, "above 0 and at most 1"),
        (ProbeConfig, {"adversarial_images": -1}, "give a number of at least 0"),
        (ProbeConfig, {"splits": 60}, "from 0 to 16"),
        (TrainConfig, {"learning_rate": "inf"}, "give a number above 0"),
        (TrainConfig, {"weight_decay": "nan"}, "give a number of at least 0"),
        (TrainConfig, {"batch_size": 0}, "give a number of at least 1"),
        (TrainConfig, {"epochs": 10**400}, "give a"),
        (TrainConfig, {"epochs": 2**53 + 1}, r"at most 2\^53"),
        (DetectConfig, {"refinements": 2**63}, r"at most 2\^53"),
        (TrainConfig, {"momentum": 0}, "above 0 and at most 1"),
        (PurifyConfig, {"keep": [2]}, "above 0 and at most 1"),
        (PurifyConfig, {"learning_rate": [0.1, 0]}, "above 0"),
        (PurifyConfig, {"ema_decay": 2}, "from 0 to 1"),
        (DetectConfig, {"confidence_in_none": [0.95]}, "give 2 numbers"),
        (DetectConfig, {"certainty": 0}, r"from 0\.5 to 1"),
    ],
)
def test_a_wrong_value_is_refused_by_name(cls: type, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        from_mapping(cls, values)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "2.0"])
def test_a_number_that_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"TrainConfig\.epochs"):
        from_mapping(TrainConfig, {"epochs": value})


def test_one_value_leaves_the_others_at_their_defaults() -> None:
    assert from_mapping(TrainConfig, {"epochs": 2.0}) == TrainConfig(epochs=2)
    assert from_mapping(PurifyConfig, {"keep": [1]}) == PurifyConfig(keep=(1.0,))


CHOICES = [
    *({"attack": name, "attack_settings": {}} for name in ATTACKS.names()),
    *({"detect_settings": {"detector": name}} for name in DETECTORS.names()),
    *({"purify_settings": {"defence": name}} for name in DEFENCES.names()),
]


@pytest.mark.parametrize("parameters", CHOICES, ids=str)
def test_every_attack_detector_and_defence_can_be_named_in_a_pipeline_s_parameters(parameters: dict[str, Any]) -> None:
    check_settings(parameters)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"attack": "sparkle"}, "unknown attack 'sparkle'"),
        ({"attack": "blend", "attack_settings": {"size": 3}}, "BlendConfig has no setting size: choose from ratio"),
        ({"attack_settings": {"size": -1}}, "BadNetsConfig.size is -1"),
        ({"attack_settings": [3]}, "attack_settings is .*: give settings by name"),
        ({"detect_settings": {"detector": "oracle"}}, "unknown detector 'oracle'"),
        ({"purify_settings": {"defence": "prayer"}}, "unknown defence 'prayer'"),
        ({"purify_settings": {"defence": "ft-sam", "keep": [1]}}, "has no setting keep"),
        ({"purify_settings": {"preset": "strong"}}, "unknown preset 'strong'"),
    ],
)
def test_what_a_step_would_refuse_is_refused_before_anything_is_spent(
    parameters: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        check_settings(parameters)
