"""The report: its stages in order, its table for people, its rows for plots."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pud.base.errors import InputError
from pud.reporting.report import FORMAT, load_report, rows_of, save_report, stages_of, table


def stage(clean: float, success: float, recovery: float, robust: float, **more: Any) -> dict[str, Any]:
    record = {"attack": "PGD", "epsilon": 8 / 255, "steps": 20, "restarts": 1, "n": 1000, "seed": 0, "value": robust}
    return {
        "clean_accuracy": clean,
        "attack_success_rate": success,
        "recovery_accuracy": recovery,
        "robust_accuracy": [record],
        **more,
    }


def detected(targets: list[int]) -> dict[str, Any]:
    return {"true_positive_rate": 0.987, "false_positive_rate": 0.0012, "target_labels": targets}


def small_report() -> dict[str, Any]:
    last = stage(0.884, 0.014, 0.89, 0.83, detection=detected([0]), seconds=160.4)
    last["robust_accuracy"].append({**last["robust_accuracy"][0], "attack": "AutoAttack", "n": 64, "value": 0.8125})
    return {
        "format": FORMAT,
        "git_commit": "",
        "dataset": {"name": "fashion-mnist", "digest": "0" * 32 + ".dir", "uri": "file:data"},
        "infected": stage(0.903, 0.995, 0.004, 0.31),
        "rounds": [stage(0.86, 0.08, 0.8, 0.79, detection=detected([0]), seconds=41.2)],
        "purified": last,
    }


def test_stages_come_in_order() -> None:
    assert [name for name, _ in stages_of(small_report())] == ["infected", "round 1", "purified"]


def test_a_report_may_be_of_a_run_that_has_only_begun() -> None:
    begun = {"format": FORMAT, "infected": small_report()["infected"], "rounds": []}
    assert [name for name, _ in rows_of(begun)] == ["infected"]
    assert len(table(begun).splitlines()) == 2
    assert len(table({"format": FORMAT, "rounds": []}).splitlines()) == 1


@pytest.mark.parametrize("lost", ["dataset", "git_commit", "name"])
def test_a_report_that_does_not_say_of_what_it_is_is_refused(lost: str, tmp_path: Path) -> None:
    report = small_report()
    report["dataset"].pop(lost, None)
    report.pop(lost, None)
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match=rf"report\.json .*{lost}"):
        load_report(tmp_path)


def test_rows_hold_the_scalars_and_the_first_attack() -> None:
    assert rows_of(small_report())[2][1] == {
        "clean_accuracy": 0.884,
        "attack_success_rate": 0.014,
        "recovery_accuracy": 0.89,
        "robust_accuracy": 0.83,
    }


def test_the_table_says_percentages_with_attack_and_n() -> None:
    header, infected, first, purified = table(small_report()).splitlines()
    assert header.split("  ")[-1] == "seconds"
    assert infected.split() == ["infected", "90.30", "99.50", "0.40", "PGD-20", "31.0", "(n=1000)"]
    assert first.endswith("41")
    assert "98.7 / 0.12" in first
    assert "PGD-20 83.0 (n=1000), AutoAttack 81.2 (n=64)" in purified


def test_the_table_s_columns_are_aligned() -> None:
    lines = table(small_report()).splitlines()
    column = lines[0].index("clean acc")
    assert [line[column : column + 5] for line in lines[1:]] == ["90.30", "86.00", "88.40"]
    assert not any(line.endswith(" ") for line in lines)


def test_a_detection_that_names_no_class_says_none() -> None:
    report = small_report()
    report["rounds"][0]["detection"]["target_labels"] = []
    assert "none" in table(report).splitlines()[2].split()


def test_a_report_survives_the_round_trip_and_leaves_a_row_a_stage(tmp_path: Path) -> None:
    save_report(tmp_path, small_report())
    assert load_report(tmp_path) == small_report()
    with (tmp_path / "rounds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == ["0", "1", "2"]
    assert [float(row["robust_accuracy"]) for row in rows] == [0.31, 0.79, 0.83]


@pytest.mark.parametrize("stage", [{}, [], {"clean_accuracy": "high"}])
def test_a_report_whose_stage_lacks_what_it_should_have_is_refused(stage: object, tmp_path: Path) -> None:
    save_report(tmp_path, small_report())
    report = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**report, "rounds": [stage]}))
    with pytest.raises(InputError, match=r"report\.json lacks what a stage has"):
        load_report(tmp_path)


def test_a_report_of_the_last_version_is_read(tmp_path: Path) -> None:
    planted = {"mapping": "all-to-one", "poison_rate": 0.1, "target_label": 0}
    old = {**small_report(), "format": "pud-report/1", "schema": 1, "trigger": {"trigger": "blend", **planted}}
    (tmp_path / "report.json").write_text(json.dumps(old))
    now = {"format": FORMAT, "schema": 2, "attack": {"name": "blend", "settings": {}, **planted}}
    assert load_report(tmp_path) == {**small_report(), **now}


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.json is missing"):
        load_report(tmp_path)
