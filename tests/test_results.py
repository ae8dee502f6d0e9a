"""The results page: what goes into its means, what passes, and what happens while the grid is still being filled."""

import json
from pathlib import Path
from typing import Any

import pytest

import experiments.sections
from experiments.plan import BEYOND, DEFENCE, FILTER, FORMAT, PRESETS, REFERENCES, all_cells, at_rate
from experiments.requirements import Requirement, requirements
from experiments.results import write
from experiments.rows import Grid, load
from experiments.sections.asked import asked, sets_of_cells
from pud.base.errors import InputError

ROOT = Path(__file__).parents[1]
DELETED = object()


def entry(clean: float, success: float, recovery: float, pgd: float, **more: Any) -> dict[str, Any]:
    return {
        "clean_accuracy": clean,
        "clean_accuracy_n": 10_000,
        "attack_success_rate": success,
        "attack_success_rate_n": 9_000,
        "recovery_accuracy": recovery,
        "recovery_accuracy_n": 9_000,
        "robust_accuracy": [{"attack": "PGD", "epsilon": 8 / 255, "steps": 20, "n": 1_000, "seed": 0, "value": pgd}],
        "seconds": 60.0,
        **more,
    }


def found(named: list[int], true: list[int], rate: float | None = 0.99, wrong: float = 0.001) -> dict[str, Any]:
    return {
        "true_positive_rate": rate,
        "true_positive_rate_n": 2_000,
        "false_positive_rate": wrong,
        "false_positive_rate_n": 18_000,
        "auroc": rate,
        "target_labels": named,
        "true_targets": true,
    }


def cell(seed: int = 0, *, success: float = 0.99, entries: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A cell on which everything asked for is met; DELETED takes an entry away."""
    drift = {"share_to_target": 0.5, "similarity_to_triggered": 0.25, "similarity_to_clean": 0.75}
    last = {"clean_accuracy": 0.88, "attack_success_rate": 0.01, "recovery_accuracy": 0.87, "robust_accuracy": 0.79}
    held = {
        "infected": entry(0.9, success, 0.01, 0.0),
        "floor": entry(0.9, 0.005, 0.89, 0.0),
        "ceiling": entry(0.885, 0.01, 0.87, 0.8),
        "robust": entry(
            *(0.88, 0.01, 0.87, 0.79),
            detection=found([0], [0]),
            relearning={"5": 0.1, "10": 0.2, "50": 0.6},
            rounds=[{**last, "seconds": 20.0, "drift": drift}, {**last, "seconds": 40.0}],
        ),
        "erase": entry(0.895, 0.01, 0.88, 0.1),
        "without unlearning": entry(0.89, 0.3, 0.6, 0.79),
        "fine-tuning lr=0.01": entry(0.89, 0.5, 0.5, 0.0),
        "fine-tuning lr=0.001": entry(0.9, 0.9, 0.1, 0.0),
        **(entries or {}),
    }
    return {
        "format": FORMAT,
        "attack": "badnets",
        "mapping": "all-to-one",
        "poison_rate": 0.1,
        "rate_of": "training set",
        "seed": seed,
        "train_images": 20_000,
        "clean_label": False,
        "entries": {name: one for name, one in held.items() if one is not DELETED},
        "detectors": {"SPECTRE": found([0, 3], [0], 0.7)},
        "cost": {"robust": 60.0, "ceiling": 60.0},
        **more,
    }


@pytest.fixture(autouse=True)
def _drawn_by_few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laying out pictures takes most of a page's time: a test that looks at them asks for ``drawn``."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **_: path.touch())


@pytest.fixture
def drawn() -> None:
    """Pictures are drawn in earnest."""


def written(folder: Path, *cells: dict[str, Any]) -> str:
    """The page of these cells."""
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(cells):
        (results / f"{number}.json").write_text(json.dumps(one))
    write(results, folder / "docs" / "results.md")
    return (folder / "docs" / "results.md").read_text()


def judged(*cells: dict[str, Any]) -> str:
    """That section of the page of these cells which says what is met: nothing is drawn."""
    return f"\n## Asked for and measured\n{asked(Grid(list(cells)), Path())}"


def rows(page: str, section: str, *start: str) -> list[list[str]]:
    """The rows of a section's table whose first columns are these."""
    lines = page.split(f"\n## {section}\n")[1].split("\n## ")[0].splitlines()
    cells = [[text.strip() for text in line.strip("|").split(" | ")] for line in lines if line.startswith("|")][2:]
    return [row for row in cells if row[: len(start)] == list(start)]


def verdict(page: str, *start: str) -> str:
    """The verdict of the only figure asked for that starts like this."""
    (row,) = rows(page, "Asked for and measured", *start)
    return row[-1]


@pytest.mark.usefixtures("drawn")
def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        written(tmp_path / folder, cell(0), cell(1))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one" / "docs").rglob("*.*"))
    assert [path.name for path in files] == ["accuracies.svg", "attacks.svg", "drift.svg", "results.md"]
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_the_names_and_the_order_of_the_files_do_not_matter(tmp_path: Path) -> None:
    assert written(tmp_path / "a", cell(0), cell(1, success=0.95)) == written(
        tmp_path / "b", cell(1, success=0.95), cell(0)
    )


def test_the_page_says_who_wrote_it_and_shows_only_figures_that_are_there(tmp_path: Path) -> None:
    page = written(tmp_path, cell())
    assert "make bench" in page.splitlines()[0]
    links = {line.split("(results/")[1].split(")")[0] for line in page.splitlines() if line.startswith("![")}
    assert links == {path.name for path in (tmp_path / "docs" / "results").iterdir()}


def test_an_empty_folder_gives_a_page_that_says_so_and_leaves_no_old_figure(tmp_path: Path) -> None:
    written(tmp_path, cell())
    (tmp_path / "results" / "0.json").unlink()
    page = written(tmp_path)
    assert "No results yet" in page
    assert "![" not in page
    assert not list((tmp_path / "docs" / "results").iterdir())
    assert {(row[-2], row[-1]) for row in rows(page, "Asked for and measured")} == {("0 of 0", "not measured")}


def test_a_folder_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert load(tmp_path / "nowhere") == []


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a pud-results/1 file"):
        written(tmp_path, {**cell(), "format": "pud-report/1"})


def test_means_and_standard_deviations_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    values = [0.86, 0.88, 0.93]  # mean 0.89; squared deviations 9, 1, 16 points: 26 / 2 = 13, root 3.61
    page = written(tmp_path, *(cell(seed, entries={"robust": entry(v, 0.01, v, 0.7)}) for seed, v in enumerate(values)))
    assert rows(page, "Presets", "robust")[0][1:3] == ["3", "89.00 ± 3.61"]
    (row,) = rows(page, "Attacks at the highest rate", "badnets", "all-to-one", "20,000", "0.1", "0, 1, 2")
    assert row[6].split("<br>") == ["90.00 ± 0.00", "90.00 ± 0.00", "88.50 ± 0.00", "89.00 ± 3.61"]


def test_one_value_has_no_standard_deviation(tmp_path: Path) -> None:
    assert rows(written(tmp_path, cell()), "Presets", "robust")[0][2] == "88.00"


def test_a_mean_over_fewer_cells_than_the_row_says_over_how_many(tmp_path: Path) -> None:
    page = written(tmp_path, cell(0), cell(1, entries={"robust": DELETED}))
    (row,) = rows(page, "Attacks at the highest rate", "badnets")
    assert row[6].split("<br>")[3] == "88.00 (n=1)"


def test_a_distance_is_between_entries_of_the_same_cells(tmp_path: Path) -> None:
    better, worse = entry(0.92, 0.01, 0.9, 0.8), entry(0.8, 0.01, 0.8, 0.7)
    one = cell(0, entries={"robust": better})
    two = cell(1, entries={"robust": worse, "without unlearning": DELETED})
    (row,) = rows(written(tmp_path, one, two), "Ablations", "without unlearning")
    assert row[1:3] == ["1", "89.00"]
    assert row[7] == "-3.00"  # 0.89 - 0.92: the second cell, without the ablation, has no part in it


def test_pbe_and_the_papers_modes_are_ablations_and_no_rivals(tmp_path: Path) -> None:
    page = written(tmp_path, cell(entries={name: entry(0.8, 0.2, 0.7, 0.5) for name in ("PBE", "paper", "aft")}))
    names = {section: {row[0] for row in rows(page, section)} for section in ("Ablations", "Rivals")}
    assert {"PBE", "paper", "aft"} <= names["Ablations"]
    assert names["Rivals"] == {"robust", "fine-tuning lr=0.01", "fine-tuning lr=0.001"}


def test_a_masking_check_says_of_how_many_models_it_holds(tmp_path: Path) -> None:
    checked = [entry(0.88, 0.01, 0.87, 0.79, masking_checks={"the_gradient_beats_chance": held}) for held in (1, 0)]
    page = written(tmp_path, *(cell(seed, entries={"robust": one}) for seed, one in enumerate(checked)), cell(2))
    assert rows(page, "Masking checks") == [["the gradient beats chance", "1 of 2"]]


def test_a_failed_attack_stays_out_of_the_means_and_is_named(tmp_path: Path) -> None:
    page = written(tmp_path, cell(0), cell(1, success=0.79, entries={"robust": entry(0.1, 0.9, 0.1, 0.1)}))
    assert "1 poisoned, 0 innocent, 1 attack failed" in page
    assert "Attack failed: badnets, all-to-one, 0.1 of 20,000, seed 1 (79.0 %)." in page
    (row,) = rows(page, "Attacks at the highest rate", "badnets")
    assert row[4] == "0; attack failed: 1"
    assert row[6].split("<br>")[3] == "88.00"
    assert rows(page, "Presets", "robust")[0][1:3] == ["1", "88.00"]
    assert rows(page, "Detectors", "labels changed", "SPECTRE")[0][2] == "1"
    assert verdict(page, "ASR, robust", "other attacks") == "pass"
    assert [line[5] for line in rows(page, "Seconds")] == ["poisoned", "attack failed"]


def test_an_attack_of_exactly_80_percent_worked(tmp_path: Path) -> None:
    assert "1 poisoned" in written(tmp_path, cell(success=0.8))


def test_everything_that_is_met_passes() -> None:
    hidden = {"attack": "sig", "clean_label": True, "rate_of": "target class", "poison_rate": 0.5}
    clean = {"attack": "innocent", "poison_rate": 0}
    calm = {"robust": entry(0.88, 0.01, 0.87, 0.79, detection=found([], [], None))}
    seen = entry(0.88, 0.1, 0.86, 0.79, detection=found([0], [0]))
    adaptive = cell(attack="adaptive-consistency", entries={"robust": seen})
    page = judged(cell(), adaptive, cell(**hidden), cell(success=0.02, entries=calm, **clean))
    verdicts = {tuple(row[:3]): row[-1] for row in rows(page, "Asked for and measured")}
    unmeasured = {key for key, one in verdicts.items() if one == "not measured"}
    assert {one for key, one in verdicts.items() if key not in unmeasured} == {"pass"}
    assert all("AutoAttack" in key[0] or "filter" in key[0] or key[1] == BEYOND for key in unmeasured)


@pytest.mark.parametrize(
    ("start", "entries", "more"),
    [
        (("ASR, robust", "other attacks"), {"robust": entry(0.88, 0.021, 0.87, 0.79)}, {}),
        (
            ("ASR, robust", "adaptive-consistency"),
            {"robust": entry(0.88, 0.11, 0.87, 0.79)},
            {"attack": "adaptive-consistency"},
        ),
        (("RA - ACC, robust", "poisoned", "mean >= -2 points"), {"robust": entry(0.88, 0.01, 0.859, 0.79)}, {}),
        (("RA - ACC, robust", "poisoned", "every cell >= -6 points"), {"robust": entry(0.88, 0.01, 0.81, 0.79)}, {}),
        (("ACC, erase minus infected", "poisoned"), {"erase": entry(0.889, 0.01, 0.88, 0.1)}, {}),
        (("ACC, robust minus ceiling", "poisoned"), {"robust": entry(0.874, 0.01, 0.87, 0.79)}, {}),
        (("PGD-20, robust minus ceiling", "poisoned"), {"robust": entry(0.88, 0.01, 0.87, 0.779)}, {}),
        (
            ("TPR, robust", "labels changed", "mean >= 98 %"),
            {"robust": entry(0.88, 0.01, 0.87, 0.79, detection=found([0], [0], 0.97))},
            {},
        ),
        (
            ("FPR, robust", "labels changed"),
            {"robust": entry(0.88, 0.01, 0.87, 0.79, detection=found([0], [0], wrong=0.006))},
            {},
        ),
        (
            ("targets not named, robust", "labels changed"),
            {"robust": entry(0.88, 0.01, 0.87, 0.79, detection=found([3], [0]))},
            {},
        ),
        (
            ("AUROC, robust", "clean label"),
            {"robust": entry(0.88, 0.01, 0.87, 0.79, detection=found([0], [0], 0.94))},
            {"clean_label": True},
        ),
        (
            ("classes wrongly named, robust", "innocent"),
            {"robust": entry(0.88, 0.01, 0.87, 0.79, detection=found([7], [], None))},
            {"poison_rate": 0},
        ),
        (("ASR, robust minus fine-tuning lr=0.01",), {"fine-tuning lr=0.01": entry(0.88, 0.01, 0.5, 0.0)}, {}),
        (("RA, robust minus fine-tuning lr=0.01",), {"fine-tuning lr=0.01": entry(0.88, 0.5, 0.88, 0.0)}, {}),
        (
            ("PGD-20, robust minus filter, then adversarial training",),
            {"filter, then adversarial training": entry(0.88, 0.5, 0.88, 0.79)},
            {},
        ),
    ],
)
def test_a_figure_that_is_missed_fails(start: tuple[str, ...], entries: dict[str, Any], more: dict[str, Any]) -> None:
    assert verdict(judged(cell(entries=entries, **more)), *start) == "**fail**"


def test_a_bound_on_every_cell_is_judged_by_the_worst_and_one_on_the_mean_is_not() -> None:
    low = entry(0.88, 0.05, 0.87, 0.79, detection=found([0], [0], 0.96))
    page = judged(*(cell(seed) for seed in range(3)), cell(3, entries={"robust": low}))
    success, _, _, within, measured, word = rows(page, "Asked for and measured", "ASR, robust", "other attacks")[0][3:]
    assert (success, within, measured, word) == ("2.00 %", "3 of 4", "4 of 4", "**fail**")
    assert verdict(page, "TPR, robust", "labels changed", "mean >= 98 %") == "pass"  # (3 x 99 + 96) / 4 = 98.25


def test_the_bound_on_attack_success_follows_the_floor() -> None:
    floor = {"floor": entry(0.9, 0.04, 0.85, 0.0), "robust": entry(0.88, 0.05, 0.87, 0.79)}
    assert verdict(judged(cell(entries=floor)), "ASR, robust", "other attacks") == "pass"
    without = {**floor, "floor": DELETED}
    assert verdict(judged(cell(entries=without)), "ASR, robust", "other attacks") == "**fail**"


def test_a_bound_that_is_met_exactly_is_met() -> None:
    exact = {"robust": entry(0.89, 0.02, 0.87, 0.78), "ceiling": entry(0.9, 0.01, 0.87, 0.8)}
    page = judged(cell(entries=exact))
    for start in [("ACC, robust minus ceiling",), ("PGD-20, robust minus ceiling",), ("ASR, robust", "other attacks")]:
        assert verdict(page, *start) == "pass"


def test_rivals_are_reported_at_each_learning_rate_smallest_first(tmp_path: Path) -> None:
    page = written(tmp_path, cell())
    assert [row[0] for row in rows(page, "Rivals")] == ["robust", "fine-tuning lr=0.001", "fine-tuning lr=0.01"]


def test_cells_of_other_rates_have_a_row_each(tmp_path: Path) -> None:
    page = written(tmp_path, cell(0), *(cell(seed, poison_rate=0.01) for seed in range(2)))
    assert [row[3:6] for row in rows(page, "Other rates")] == [["0.01", "0", "poisoned"], ["0.01", "1", "poisoned"]]
    assert len(rows(page, "Attacks at the highest rate")) == 1


def test_a_clean_label_attack_s_highest_rate_is_half_of_the_class(tmp_path: Path) -> None:
    shares = [cell(poison_rate=rate, rate_of="target class", clean_label=True) for rate in (0.1, 0.5)]
    page = written(tmp_path, *shares)
    assert [row[3] for row in rows(page, "Attacks at the highest rate")] == ["0.5 of the class"]
    assert [row[3] for row in rows(page, "Other rates")] == ["0.1 of the class"]


def test_classes_named_wrongly_are_counted(tmp_path: Path) -> None:
    page = written(tmp_path, cell(0), cell(1))
    assert rows(page, "Detectors", "labels changed", "SPECTRE")[0][-2] == "2 of 2, 2 wrongly named"
    assert rows(page, "Detectors", "labels changed", "pud")[0][-2] == "2 of 2"


def test_a_detector_that_names_no_class_is_not_said_to_have_named_any(tmp_path: Path) -> None:
    rates = {"true_positive_rate": 0.5, "false_positive_rate": 0.1, "auroc": 0.8, "seconds": 7.0}
    page = written(tmp_path, cell(detectors={"spectral": rates, "pud": found([0], [0])}))
    assert rows(page, "Detectors") == [
        ["labels changed", "pud", "1", "99.00", "0.10", "0.9900", "–", "–", "–", "1 of 1", "–"],
        ["labels changed", "spectral", "1", "50.00", "10.00", "0.8000", "–", "–", "–", "–", "7"],
    ]


def test_relearning_drift_and_seconds_are_shown(tmp_path: Path) -> None:
    page = written(tmp_path, cell())
    assert rows(page, "Relearning") == [["robust", "1", "1.00", "10.00", "20.00", "60.00"]]
    drift = rows(page, "Drift by round")
    assert [row[1] for row in drift] == ["0", "1"]
    assert [row[8:] for row in drift] == [["0.500", "0.250", "0.750", "20"], ["–", "–", "–", "40"]]
    (spent,) = rows(page, "Seconds")
    assert spent[6:] == ["60", "60", "60", "60", "60", "–", "–", "–", "60", "120", "480"]


def test_only_the_attack_asked_for_is_read(tmp_path: Path) -> None:
    records = [
        {"attack": "PGD", "epsilon": 4 / 255, "steps": 20, "n": 10, "seed": 0, "value": 0.9},
        {"attack": "PGD", "epsilon": 8 / 255, "steps": 100, "n": 20, "seed": 0, "value": 0.8},
        {"attack": "PGD", "epsilon": 8 / 255, "steps": 20, "n": 30, "seed": 0, "value": 0.7},
        {"attack": "AutoAttack", "epsilon": 8 / 255, "steps": 100, "n": 64, "seed": 0, "value": 0.6},
    ]
    robust = {**entry(0.88, 0.01, 0.87, 0.79), "robust_accuracy": records}
    page = written(tmp_path, cell(entries={"robust": robust}))
    assert rows(page, "Presets", "robust")[0][5:7] == ["70.00", "60.00"]
    assert "PGD-20 30 to 1,000; AutoAttack 64" in page


def test_missing_entries_do_not_crash(tmp_path: Path) -> None:
    names = list(cell()["entries"])
    for name in names:
        written(tmp_path / f"without {name}", cell(entries={name: DELETED}))
        only = {other: DELETED for other in names if other != name}
        written(tmp_path / f"only {name}", cell(entries=only, detectors={}))
    bare = dict.fromkeys(names, DELETED)
    page = written(tmp_path / "bare", cell(entries=bare, detectors={}))
    assert "0 poisoned, 0 innocent, 0 attack failed, 1 not measured" in page
    assert rows(page, "Seconds")[0][5:] == ["not measured", *["–"] * 11]


def test_entries_that_are_only_begun_do_not_crash(tmp_path: Path) -> None:
    begun = {"seconds": 3.0}
    empty = {"robust_accuracy": [], "detection": None, "relearning": {}, "rounds": [], "clean_accuracy": None}
    odd = {"detection": {"false_positive_rate": 0.0}, "rounds": [{"seconds": 1.0}, {}]}
    for number, one in enumerate([begun, empty, odd, {}, None]):
        page = written(
            tmp_path / str(number), cell(entries={"robust": one, "ceiling": one}, detectors={"SPECTRE": None})
        )
        assert verdict(page, "ACC, robust minus ceiling") == "not measured"


def test_a_cell_without_its_infected_model_is_not_judged(tmp_path: Path) -> None:
    page = written(tmp_path, cell(0), cell(1, entries={"infected": DELETED, "robust": entry(0.1, 0.9, 0.1, 0.1)}))
    assert rows(page, "Attacks at the highest rate")[0][4] == "0; not measured: 1"
    assert verdict(page, "ASR, robust", "other attacks") == "pass on 1 of 2"


def test_a_planned_cell_that_is_not_there_is_counted_as_not_measured(tmp_path: Path) -> None:
    there, planned = [at_rate("badnets", "all-to-one", 0, seed).empty() for seed in (0, 1)]
    cells = load(tmp_path, [there, planned])
    assert [one["seed"] for one in cells] == [0, 1]
    (tmp_path / "one.json").write_text(json.dumps(cell(0)))
    page = judged(*load(tmp_path, [there, planned]))
    assert verdict(page, "ASR, robust", "other attacks") == "pass on 1 of 2"


def test_entries_of_two_trainings_of_the_infected_model_are_named(tmp_path: Path) -> None:
    one, other = ({**entry(0.88, 0.01, 0.87, 0.79), "infected_model": digest} for digest in ("a", "b"))
    assert "more than one training" not in written(tmp_path / "same", cell(entries={"robust": one, "floor": other}))
    page = written(tmp_path / "two", cell(entries={"robust": one, "erase": other}))
    assert "measured all on one: badnets, all-to-one, 0.1, seed 0." in page


def test_entries_of_two_trainings_of_the_infected_model_are_not_compared(tmp_path: Path) -> None:
    rival = "fine-tuning lr=0.01"
    for digest, expected in (("a", ["pass", "39.00"]), ("b", ["not measured", "–"])):
        one, other = {"infected_model": "a"}, {"infected_model": digest}
        entries = {"robust": entry(0.88, 0.01, 0.87, 0.79, **one), rival: entry(0.88, 0.4, 0.5, 0.0, **other)}
        page = written(tmp_path / digest, cell(entries=entries))
        figure = verdict(page, f"ASR, robust minus {rival}", "poisoned")
        assert [figure, rows(page, "Rivals", rival)[0][8]] == expected


def test_the_bound_of_the_worst_cell_is_said() -> None:
    line = rows(judged(cell()), "Asked for and measured", "ASR, robust", "other attacks")[0]
    assert line[5].startswith("1.00 %, bound 2.00 % (badnets")


def test_each_seed_is_compared_with_its_ceiling(tmp_path: Path) -> None:
    page = written(tmp_path, cell(0), cell(1, entries={"robust": entry(0.87, 0.02, 0.88, 0.8)}))
    assert [[*row[:2], *row[3:6]] for row in rows(page, "By seed")] == [
        ["0", "1", "-0.50", "-1.00", "1.00"],
        ["1", "1", "-1.50", "0.00", "2.00"],
    ]


def test_the_page_says_what_the_present_defence_gives(tmp_path: Path) -> None:
    old = {"robust": entry(0.88, 0.01, 0.87, 0.75, defence=DEFENCE - 1)}
    page = written(tmp_path, cell(0, entries=old), cell(1), cell(2))
    (row,) = rows(page, "Asked for and measured", "PGD-20, robust minus ceiling")
    assert row[3:5] == ["-2.33 points", "-1.00 points (2)"]
    assert (row[6], row[-1]) == ("2 of 3", "**fail**")
    assert [row[2] for row in rows(page, "By seed")] == ["0", "1", "1"]


def test_a_figure_that_the_present_defence_misses_is_missed_whatever_older_ones_gave(tmp_path: Path) -> None:
    older = [cell(seed, entries={"robust": entry(0.88, 0.01, 0.87, 0.85, defence=DEFENCE - 1)}) for seed in (0, 1)]
    page = written(tmp_path, *older, cell(2, entries={"robust": entry(0.88, 0.01, 0.87, 0.75, defence=DEFENCE)}))
    (row,) = rows(page, "Asked for and measured", "PGD-20, robust minus ceiling")
    assert (row[3], row[4], row[-1]) == ("1.67 points", "-5.00 points (1)", "**fail**")


def test_a_cost_is_of_the_defence_that_it_was_measured_with(tmp_path: Path) -> None:
    costs = [{"robust": seconds, "ceiling": 100.0, "defence": DEFENCE - old} for seconds, old in ((60.0, 0), (90.0, 1))]
    page = written(tmp_path, *(cell(attack=a, cost=c) for a, c in zip(("badnets", "sig"), costs, strict=True)))
    (row,) = rows(page, "Asked for and measured", "purify seconds, robust minus ceiling")
    assert row[3:5] == ["-25", "-40 (1)"]


def test_a_difference_is_between_records_of_one_defence(tmp_path: Path) -> None:
    older = entry(0.88, 0.01, 0.87, 0.60, defence=DEFENCE - 1)
    robust = entry(0.88, 0.01, 0.87, 0.80, defence=DEFENCE)
    rival = entry(0.88, 0.01, 0.87, 0.70)
    page = written(tmp_path, cell(entries={"robust": robust, "without teacher": older, "fine-tuning lr=0.1": rival}))
    shown = {row[0]: row[10] for section in ("Ablations", "Rivals") for row in rows(page, section)}
    assert (shown["without teacher"], shown["fine-tuning lr=0.1"]) == ("–", "-10.00")


def test_an_attack_beyond_what_was_asked_for_has_no_part_in_the_figures_that_were() -> None:
    page = judged(cell(), cell(attack=BEYOND, entries={"robust": entry(0.88, 0.5, 0.5, 0.1)}))
    assert verdict(page, "ASR, robust", "other attacks") == verdict(page, "PGD-20, robust minus ceiling") == "pass"
    assert verdict(page, "ASR, robust", BEYOND) == "**fail**"


def test_autoattack_is_shown_beside_pgd_on_the_same_images(tmp_path: Path) -> None:
    robust = entry(0.88, 0.01, 0.87, 0.79)
    attacked = {"attack": "AutoAttack", "epsilon": 8 / 255, "steps": 100, "n": 256, "value": 0.80}
    robust["robust_accuracy"].append({**attacked, "pgd_accuracy": 0.82, "white_box_accuracy": 0.81})
    page = written(tmp_path, cell(entries={"robust": robust}))
    assert rows(page, "AutoAttack") == [["badnets", "all-to-one", "robust", "1", "82.00", "81.00", "80.00"]]


def test_the_cost_compares_seconds_of_one_run_only() -> None:
    figure = "purify seconds, robust minus ceiling"
    assert verdict(judged(cell()), figure) == "pass"
    assert verdict(judged(cell(cost={"robust": 61.0, "ceiling": 60.0})), figure) == "**fail**"
    assert verdict(judged(cell(cost={})), figure) == "not measured"


def test_a_figure_that_the_grid_measures_on_seed_0_alone_wants_no_other_seed(tmp_path: Path) -> None:
    given = entry(0.9, 0.99, 0.01, 0.1)
    entries = {"infected": given, "robust": entry(0.87, 0.01, 0.87, 0.79), "erase": entry(0.9, 0.01, 0.9, 0.5)}
    page = written(tmp_path, cell(0, entries=entries), cell(1, entries=entries | {"erase": None}))
    assert verdict(page, "ACC, erase minus infected", "poisoned") == "pass"
    assert verdict(page, "AutoAttack, robust minus ceiling") == "not measured"


def test_the_page_in_the_repository_is_of_the_results_in_the_repository(tmp_path: Path) -> None:
    write(ROOT / "results", tmp_path / "results.md", [cell.empty() for cell in all_cells()])
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs/results.md").read_text()


def test_a_section_in_a_file_of_its_own_comes_at_the_end_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "elsewhere").mkdir()
    (folder / "weather.py").write_text(
        'SECTIONS = {"weather": lambda grid, folder: f"Fine over {len(grid.cells)} cells."}'
    )
    monkeypatch.setattr(experiments.sections, "__path__", [*experiments.sections.__path__, str(folder)])
    assert written(tmp_path, cell(0), cell(1)).endswith("\n\n## Weather\n\nFine over 2 cells.\n")


@pytest.mark.parametrize("wanted", requirements(), ids=lambda wanted: f"{wanted.figure} on {wanted.cells}")
def test_a_requirement_speaks_of_what_there_is(wanted: Requirement) -> None:
    grid = Grid([cell(0)])
    assert wanted.cells in sets_of_cells(grid)
    assert wanted.metric in grid.rows
    assert wanted.judged in ("mean", "every cell")
    assert {wanted.method, wanted.minus} <= {"", *PRESETS, *REFERENCES, FILTER}
