"""The grid: what is measured is kept at once, measured again only of another defence, and every entry has a place."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import grid, plan
from experiments.ablations import DETECTOR_ABLATIONS
from experiments.entries import ABLATIONS, BESIDE_AUTOATTACK, ENTRIES, AutoAttacked, Entry
from experiments.grid import is_done
from experiments.plan import FILTER, HELD_OUT_SEED, ONE, OTHER_RATES_SEED, REPEATED_SEED, SEEDS, Cell, all_cells
from pud.attacks import ATTACKS
from pud.defences.pud import PRESETS
from pud.detectors import DETECTORS

CELL = Cell("wanet", "all-to-one", 0.1, 0)
RIVAL_DETECTORS = set(DETECTORS.names()) - {"pud", "none"}
Measure = Callable[[Cell, Entry], None]


def free(entry: Entry, before: Measure = lambda cell, entry: None) -> Entry:
    """The entry, measured at no cost; ``before`` is called first."""

    def measure(cell: Cell) -> dict[str, Any]:
        before(cell, entry)
        beside = dict.fromkeys(BESIDE_AUTOATTACK, 0.8) if isinstance(entry, AutoAttacked) else {}
        return {"robust_accuracy": [{}], "detection": {}, **beside}

    more = {"of": free(entry.of, before)} if isinstance(entry, AutoAttacked) else {}
    return dataclasses.replace(entry, measure=measure, **more)


FREE = {name: free(entry) for name, entry in ENTRIES.items()}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A grid of one cell whose measures cost nothing; the list says what was asked for."""
    done: list[str] = []

    def note(cell: Cell, entry: Entry) -> None:
        done.append(f"{cell.name}/{entry.name}")
        if len(done) == 3:
            raise KeyboardInterrupt

    wanted = [(cell, free(entry, note)) for cell, entry in dict.fromkeys(grid.grid())]
    monkeypatch.setattr(grid, "grid", lambda: wanted)
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
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


def test_the_grid_holds_attacks_that_there_are_and_every_preset_ablation_and_rival() -> None:
    wanted = set(grid.grid())
    assert {cell.attack for cell, _ in wanted} <= set(ATTACKS.names())  # the ledger's plan has all: test_splits.py
    entries = {entry.name for _, entry in wanted}
    assert entries == set(ENTRIES)
    ablations = {entry.name for entry in ABLATIONS}
    assert entries >= {*PRESETS, *ablations, "infected", "floor", "ceiling", FILTER, "autoattack robust"}
    assert {f"detector {name}" for name in [*RIVAL_DETECTORS, *DETECTOR_ABLATIONS]} <= entries
    seeds = {cell.seed for cell, entry in wanted if entry.name == "robust"}
    assert seeds == {*SEEDS, OTHER_RATES_SEED, REPEATED_SEED, HELD_OUT_SEED}


def test_detectors_autoattack_and_cost_have_places_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    for entry in ("robust", "detector strip", "autoattack robust", "cost"):
        assert not is_done(CELL, FREE[entry], CELL.load(tmp_path))
        grid.record(CELL, FREE[entry])
        assert is_done(CELL, FREE[entry], CELL.load(tmp_path))
    content = CELL.load(tmp_path)
    assert set(content["detectors"]) == {"strip"}
    assert set(content["entries"]) == {"robust"}
    assert len(content["entries"]["robust"]["robust_accuracy"]) == 2


def test_what_is_of_an_older_defence_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    ours = ["robust", "without unlearning", "cost", *(f"detector {part}" for part in DETECTOR_ABLATIONS)]
    entries = ["infected", FILTER, "detector strip", *ours]
    for entry in entries:
        grid.record(CELL, FREE[entry])
    monkeypatch.setattr(plan, "DEFENCE", plan.DEFENCE + 1)
    assert [entry for entry in entries if not is_done(CELL, FREE[entry], CELL.load(tmp_path))] == ours


def test_a_cell_s_entries_are_of_one_infected_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    own, bounds = ["infected", "robust", FILTER, "detector strip", "autoattack robust"], ["ceiling"]
    bounds += [f"autoattack {bound}" for bound in bounds]
    entries = own + bounds
    monkeypatch.setattr(grid, "_digest", lambda cell: "the first")
    grid.record(CELL, FREE["infected"])
    monkeypatch.setattr(grid, "_digest", lambda cell: None)  # a fresh checkout
    assert is_done(CELL, FREE["infected"], CELL.load(tmp_path))  # and an attack that failed: no other entry
    monkeypatch.setattr(grid, "_digest", lambda cell: "the first")
    for entry in entries:
        grid.record(CELL, FREE[entry])
    monkeypatch.setattr(grid, "_digest", lambda cell: None)
    assert all(is_done(CELL, FREE[entry], CELL.load(tmp_path)) for entry in entries)
    monkeypatch.setattr(grid, "_digest", lambda cell: "trained again, elsewhere")
    assert [entry for entry in entries if not is_done(CELL, FREE[entry], CELL.load(tmp_path))] == own
    grid.record(CELL, FREE["robust"])
    monkeypatch.setattr(grid, "_digest", lambda cell: None)
    assert not is_done(CELL, FREE[FILTER], CELL.load(tmp_path))  # of another model than robust
    content = CELL.load(tmp_path)
    del content["entries"]["infected"]["infected_model"]
    assert not is_done(CELL, FREE["infected"], content)  # of nobody knows which


def test_two_processes_may_measure_entries_of_one_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(cell: Cell, entry: Entry) -> None:
        grid.record(cell, FREE["robust"])

    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    grid.record(CELL, free(ENTRIES["infected"], meanwhile))
    assert set(CELL.load(tmp_path)["entries"]) == {"infected", "robust"}


def test_the_plan_holds_the_cells_of_the_grid_and_later_seeds_lead_elsewhere() -> None:
    cells = all_cells()
    assert set(cells) == {cell for cell, _ in grid.grid()}
    assert {cell.target_label for cell in cells if cell.seed < 2} == {0}
    for seed in (2, OTHER_RATES_SEED, HELD_OUT_SEED):
        assert len({cell.target_label for cell in cells if cell.seed == seed and cell.mapping == ONE}) == 9
    assert len({cell.target_label for cell in cells if cell.attack == "sig"}) == 5


@pytest.mark.parametrize(("success", "rate", "needless"), [(0.79, 0.1, True), (0.81, 0.1, False), (0.01, 0.0, False)])
def test_nothing_is_defended_where_the_attack_failed(success: float, rate: float, needless: bool) -> None:
    content = {"entries": {"infected": {"attack_success_rate": success}}}
    cell = Cell("wanet", "all-to-one", rate, 0)
    assert grid.is_needless(cell, ENTRIES["robust"], content) is needless
    assert not grid.is_needless(cell, ENTRIES["infected"], content)
    assert not grid.is_needless(cell, ENTRIES["robust"], {"entries": {}})
