"""Gates: each closes on the wrong side of its limit, a figure that nobody measured meets none, and a task says so."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.gate import gate
from pud.artifacts.verdict import save_verdict
from pud.base.config import from_mapping
from pud.base.errors import InputError
from pud.base.files import read_json
from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED
from pud.reporting.gates import GateConfig, check_name, failures
from pud.reporting.report import save_report
from pud.steps.gate import FORMAT, gate_step

SAID = {"verdict": "backdoor: class 3", "verdict_code": BACKDOOR, "target_labels": [3], "unjudged": {}}
SAID |= {"confidence": 0.99, "rounds_done": 2, "separation": [0.0] * 10, "counts": {"clean": 900, "poisoned": 100}}
VERDICT: dict[str, Any] = {**SAID, "accused_images": 100, "images": 1000, "given_label_accuracy": 0.97}
PGD = {"attack": "PGD", "epsilon": 0.03, "steps": 20, "restarts": 1, "n": 1000, "seed": 0}
GIVEN = {"given_label_accuracy": 0.97, "clean_accuracy": 0.92, "robust_accuracy": [PGD | {"value": 0.1}]}
REPAIRED = {"given_label_accuracy": 0.85, "clean_accuracy": 0.9, "robust_accuracy": [PGD | {"value": 0.7}]}
REPORT: dict[str, Any] = {"infected": GIVEN, "rounds": [], "purified": REPAIRED}
OPEN = GateConfig(largest_accuracy_drop=1, largest_accused_share=1, judged=False)
ALL = [
    ("least_given_label_accuracy", 0.85, "accuracy on the given labels: 85 %, at least 85.1 % is asked for"),
    ("least_clean_accuracy", 0.9, "clean accuracy: 90 %, at least 90.1 % is asked for"),
    ("largest_accuracy_drop", 0.02, "drop of clean accuracy: 2 %, at most 1.9 % is allowed"),
    ("least_robust_accuracy", 0.7, "robust accuracy: 70 %, at least 70.1 % is asked for"),
    ("largest_accused_share", 0.1, "share of accused images: 10 %, at most 9.9 % is allowed"),
]


def report_with(**repaired: Any) -> dict[str, Any]:
    return {**REPORT, "purified": {key: value for key, value in (REPAIRED | repaired).items() if value is not None}}


def test_a_verdict_says_which_targets_have_no_accused_image(tmp_path: Path) -> None:
    said = SAID | {"target_labels": [3, 5], "shortcuts": [5]}
    assert save_verdict(tmp_path, said, {})["shortcuts"] == [5]


def test_a_repair_that_costs_little_meets_the_gates_that_there_are_by_default() -> None:
    assert failures(VERDICT, REPORT, GateConfig()) == []


@pytest.mark.parametrize(("name", "limit", "words"), ALL)
def test_a_gate_is_met_at_its_limit_and_not_beyond(name: str, limit: float, words: str) -> None:
    stricter = 0.001 if name.startswith("least") else -0.001
    assert failures(VERDICT, REPORT, replace(OPEN, **{name: limit})) == []
    assert failures(VERDICT, REPORT, replace(OPEN, **{name: limit + stricter})) == [words]


@pytest.mark.parametrize("limit", [0.1, 0.7, 0.9, 0.95])
def test_what_float32_makes_of_a_figure_at_the_limit_meets_the_gate(limit: float) -> None:
    counted = float(np.float32(limit))
    assert failures(VERDICT, report_with(clean_accuracy=counted), replace(OPEN, least_clean_accuracy=limit)) == []


def test_every_gate_that_is_not_met_has_its_sentence() -> None:
    strict = GateConfig(1, 1, 0, 1, 0)
    assert len(failures({**VERDICT, "verdict_code": CANNOT_BE_JUDGED}, REPORT, strict)) == 6


@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize(("key", "gate"), [("given_label_accuracy", ALL[0][0]), ("clean_accuracy", ALL[1][0])])
def test_a_figure_that_nobody_measured_meets_no_gate(key: str, gate: str, value: float | None) -> None:
    (sentence,) = failures(VERDICT, report_with(**{key: value}), replace(OPEN, **{gate: 0.1}))
    assert ("not measured" if value is None else "nan %") in sentence


@pytest.mark.parametrize("report", [None, {"infected": GIVEN, "rounds": []}, report_with(robust_accuracy=[])])
def test_a_model_that_was_not_measured_is_not_robust(report: dict[str, Any] | None) -> None:
    (sentence,) = failures(VERDICT, report, replace(OPEN, least_robust_accuracy=0.1))
    assert sentence == "robust accuracy: not measured, at least 10 % is asked for"


def test_without_a_report_no_model_is_fit_unless_nothing_is_asked_of_its_accuracy() -> None:
    assert "not measured" in failures(VERDICT, None, GateConfig())[0]
    assert failures(VERDICT, None, GateConfig(largest_accuracy_drop=1)) == []


def test_where_nothing_was_repaired_the_given_model_answers_for_the_given_labels() -> None:
    config = replace(OPEN, least_given_label_accuracy=0.98)
    assert failures(VERDICT, None, config) == ["accuracy on the given labels: 97 %, at least 98 % is asked for"]


def test_what_asks_for_nothing_is_no_gate() -> None:
    nothing = {"verdict_code": CANNOT_BE_JUDGED, "unjudged": {"1": "few"}}
    assert failures(nothing, None, OPEN) == []


@pytest.mark.parametrize(("accuracy", "met"), [(0.97 - 0.1 - 0.05, True), (0.97 - 0.1 - 0.051, False)])
def test_without_test_images_the_labels_of_accused_images_are_no_loss(accuracy: float, met: bool) -> None:
    """A tenth is accused, so a tenth of the labels is not given any more."""
    report = report_with(given_label_accuracy=accuracy, clean_accuracy=None)
    found = failures(VERDICT, report, replace(OPEN, largest_accuracy_drop=0.05))
    assert (found == []) == met
    assert all("beyond the accused images: 5.1 %, at most 5 %" in sentence for sentence in found)


@pytest.mark.parametrize(("code", "judged", "met"), [(CANNOT_BE_JUDGED, True, False), (CANNOT_BE_JUDGED, False, True)])
def test_what_cannot_be_judged_is_fit_only_for_who_says_so(code: str, judged: bool, met: bool) -> None:
    found = failures({**VERDICT, "verdict_code": code, "unjudged": {"4": "few"}}, REPORT, GateConfig(judged=judged))
    assert (found == []) == met
    assert all("1 classes were left out" in sentence for sentence in found)


def test_a_backdoor_that_was_found_is_a_judgement_though_a_class_was_left_out() -> None:
    assert failures({**VERDICT, "unjudged": {"4": "few"}}, REPORT, GateConfig()) == []


@pytest.mark.parametrize(("setting", "words"), [({"least_clean": 1}, "no setting"), ({ALL[1][0]: 90}, "from 0 to 1")])
def test_a_wrong_gate_is_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_mapping(GateConfig, setting)


@pytest.mark.parametrize("name", ["", "  ", "a/b", "models:a", "it's", 'a "b"', "a\nb", "a\u202eb", "a" * 201])
def test_a_name_that_mlflow_cannot_find_again_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no name for a registered model"):
        check_name(name)


# ------------------------------------------------------------------------------------------------------- step and task


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return the folders of findings and of a report as the steps write them."""
    findings, report = tmp_path / "findings", tmp_path / "report"
    findings.mkdir()
    report.mkdir()
    save_verdict(findings, SAID, {"given_label_accuracy": 0.97})
    about = {"name": "pictures", "digest": "0" * 32, "uri": ""}
    save_report(report, {"format": "pud-report/2", "schema": 2, "git_commit": "", "dataset": about, **REPORT})
    return findings, report


def test_gates_that_are_met_are_written_down(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert gate_step(*folders, GateConfig(), gate=tmp_path / "gate") == {"met": 1.0, "promoted": 0.0}
    content = read_json(tmp_path / "gate" / "gate.json", FORMAT, met=bool, failures=list, settings=dict)
    assert (content["met"], content["failures"], content["champion"]) == (True, [], None)
    assert from_mapping(GateConfig, content["settings"]) == GateConfig()


def test_a_gate_that_is_not_met_fails_the_step_after_it_was_written_down(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"not fit for release: clean accuracy: 90 %, at least 95 % is asked for"):
        gate_step(*folders, GateConfig(least_clean_accuracy=0.95), gate=tmp_path / "gate")
    content = read_json(tmp_path / "gate" / "gate.json", FORMAT)
    assert (content["met"], len(content["failures"])) == (False, 1)
    gate_step(*folders, GateConfig(), gate=tmp_path / "gate")  # the same folder, with other gates
    assert read_json(tmp_path / "gate" / "gate.json", FORMAT)["met"] is True


def test_a_folder_with_other_things_and_findings_without_a_verdict_are_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="would be lost"):
        gate_step(*folders, GateConfig(), gate=folders[1])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other things"):
        gate_step(*folders, GateConfig(), gate=tmp_path / "mine")
    (folders[0] / "verdict.json").unlink()
    with pytest.raises(InputError, match=r"verdict\.json is missing"):
        gate_step(*folders, GateConfig(), gate=tmp_path / "gate")
    assert not (tmp_path / "gate").exists()


@dataclass
class Made:
    """An artifact as a task is handed it."""

    name: str
    path: str

    def log_metric(self, name: str, value: float) -> None:
        """Kubeflow's page is not here."""


@pytest.mark.parametrize(("settings", "met"), [({}, True), ({"least_robust_accuracy": 0.8}, False)])
def test_the_task_fails_loudly_where_a_gate_is_not_met(
    settings: dict[str, float], met: bool, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    findings, report, gates, metrics = (
        Made(name, str(tmp_path / name)) for name in ("findings", "report", "gates", "metrics")
    )
    given = (findings, settings, "repaired", {"off": True}, "a job", "", gates, metrics)
    with nullcontext() if met else pytest.raises(InputError, match="robust accuracy: 70 %, at least 80 %"):
        gate.python_func(*given, report=report)
    assert (tmp_path / "gates" / "gate.json").is_file()
    assert (tmp_path / "metrics").is_file() == met
