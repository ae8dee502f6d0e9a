"""The grid: what is measured is kept at once, measured again only of another defence, and every entry has a place."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import grid
from experiments.grid import ABLATIONS, Cell, is_done
from experiments.plan import HELD_OUT_SEED, OTHER_RATES_SEED, REPEATED_SEED, all_cells
from pud.attacks import ATTACKS
from pud.defences.pud import PRESETS

CELL = Cell("wanet", "all-to-one", 0.1, 0)


def measured(cell: Cell, entry: str) -> dict[str, Any]:
    """What an entry would give, at no cost."""
    beside = dict.fromkeys(grid.BESIDE_AUTOATTACK, 0.8) if entry.startswith("autoattack ") else {}
    return {"robust_accuracy": [{}], "detection": {}, **beside}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A grid of one cell whose measures cost nothing; the list says what was asked for."""
    done: list[str] = []

    def measure(cell: Cell, entry: str) -> dict[str, Any]:
        done.append(f"{cell.name}/{entry}")
        if len(done) == 3:
            raise KeyboardInterrupt
        return measured(cell, entry)

    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid, "measure", measure)
    monkeypatch.setattr("sys.argv", ["grid", "--only", "wanet_all-to-one_0.1_s0/*r*"])
    return done


def test_the_grid_stops_anywhere_and_goes_on(asked: list[str], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        grid.main()
    kept = json.loads((tmp_path / f"{CELL.name}.json").read_text())
    assert set(kept["entries"]) == {name.partition("/")[2] for name in asked[:2]}
    grid.main()
    assert asked[3] == asked[2]  # the one that was interrupted
    assert len(asked) == len(set(asked)) + 1  # nothing else twice


def test_the_grid_holds_every_attack_preset_ablation_and_rival() -> None:
    wanted = set(grid.grid())
    assert {cell.attack for cell, _ in wanted} == set(ATTACKS.names())
    entries = {entry for _, entry in wanted}
    assert entries >= {*PRESETS, *ABLATIONS, "infected", "floor", "ceiling", grid.FILTER, "autoattack robust"}
    assert {f"detector {name}" for name in [*grid.RIVAL_DETECTORS, *grid.DETECTOR_ABLATIONS]} <= entries
    seeds = {cell.seed for cell, entry in wanted if entry == "robust"}
    assert seeds == {*grid.SEEDS, OTHER_RATES_SEED, REPEATED_SEED, HELD_OUT_SEED}


def test_detectors_autoattack_and_cost_have_places_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid, "measure", measured)
    for entry in ("robust", "detector strip", "autoattack robust", grid.COST):
        assert not is_done(CELL, entry, CELL.load(tmp_path))
        grid.record(CELL, entry)
        assert is_done(CELL, entry, CELL.load(tmp_path))
    content = CELL.load(tmp_path)
    assert set(content["detectors"]) == {"strip"}
    assert set(content["entries"]) == {"robust"}
    assert len(content["entries"]["robust"]["robust_accuracy"]) == 2


def test_what_is_of_an_older_defence_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid, "measure", measured)
    ours = ["robust", "without unlearning", grid.COST, *(f"detector {part}" for part in grid.DETECTOR_ABLATIONS)]
    entries = ["infected", grid.FILTER, "detector strip", *ours]
    for entry in entries:
        grid.record(CELL, entry)
    monkeypatch.setattr(grid, "DEFENCE", grid.DEFENCE + 1)
    assert [entry for entry in entries if not is_done(CELL, entry, CELL.load(tmp_path))] == ours


def test_a_cell_s_entries_are_of_one_infected_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid, "measure", measured)
    own, bounds = ["infected", "robust", grid.FILTER, "detector strip", "autoattack robust"], ["ceiling"]
    bounds += [f"autoattack {bound}" for bound in bounds]
    entries = own + bounds
    monkeypatch.setattr(grid, "_digest", lambda cell: "the first")
    grid.record(CELL, "infected")
    monkeypatch.setattr(grid, "_digest", lambda cell: None)  # a fresh checkout
    assert is_done(CELL, "infected", CELL.load(tmp_path))  # and an attack that failed: no other entry
    monkeypatch.setattr(grid, "_digest", lambda cell: "the first")
    for entry in entries:
        grid.record(CELL, entry)
    monkeypatch.setattr(grid, "_digest", lambda cell: None)
    assert all(is_done(CELL, entry, CELL.load(tmp_path)) for entry in entries)
    monkeypatch.setattr(grid, "_digest", lambda cell: "trained again, elsewhere")
    assert [entry for entry in entries if not is_done(CELL, entry, CELL.load(tmp_path))] == own
    grid.record(CELL, "robust")
    monkeypatch.setattr(grid, "_digest", lambda cell: None)
    assert not is_done(CELL, grid.FILTER, CELL.load(tmp_path))  # of another model than robust
    content = CELL.load(tmp_path)
    del content["entries"]["infected"]["infected_model"]
    assert not is_done(CELL, "infected", content)  # of nobody knows which


def test_two_processes_may_measure_entries_of_one_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(cell: Cell, entry: str) -> dict[str, Any]:
        if entry == "infected":
            grid.record(cell, "robust")  # meanwhile
        return {}

    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid, "measure", measure)
    grid.record(CELL, "infected")
    assert set(CELL.load(tmp_path)["entries"]) == {"infected", "robust"}


def test_the_plan_holds_the_cells_of_the_grid_and_later_seeds_lead_elsewhere() -> None:
    cells = all_cells()
    assert set(cells) == {cell for cell, _ in grid.grid()}
    assert {cell.target_label for cell in cells if cell.seed < 2} == {0}
    for seed in (2, OTHER_RATES_SEED, HELD_OUT_SEED):
        assert len({cell.target_label for cell in cells if cell.seed == seed and cell.mapping == grid.ONE}) == 9
    assert len({cell.target_label for cell in cells if cell.attack == "sig"}) == 5


@pytest.mark.parametrize(("success", "rate", "needless"), [(0.79, 0.1, True), (0.81, 0.1, False), (0.01, 0.0, False)])
def test_nothing_is_defended_where_the_attack_failed(success: float, rate: float, needless: bool) -> None:
    content = {"entries": {"infected": {"attack_success_rate": success}}}
    cell = Cell("wanet", "all-to-one", rate, 0)
    assert grid.is_needless(cell, "robust", content) is needless
    assert not grid.is_needless(cell, "infected", content)
    assert not grid.is_needless(cell, "robust", {"entries": {}})
