"""The ledger is only ever added to, counts runs, knows the code; what is made of it is of first runs, all of them."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import first_runs, ledger
from experiments.calibration import ENOUGH, calibration, even, stated, wilson
from experiments.calibration import main as calibrate
from experiments.first_results import interval, page
from experiments.first_runs_cells import Cell, infected, innocent, planned
from experiments.ledger import Code, append, changed_since, read, sources
from experiments.rows import load
from experiments.splits import ATTACKS, DEVELOPMENT, EVALUATION, PICTURES, WEIGHTS, Pictures, Planted
from pud.base.errors import InputError
from pud.base.files import sha256
from pud.defences.pud import PRESETS, PurifyConfig
from pud.detectors import confidence
from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, NONE_FOUND
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig

ROOT = Path(__file__).parents[1]
BADNETS, BLEND, WANET = ATTACKS[DEVELOPMENT]
CELL = infected("cifar-dev", 0, BADNETS, 0.1)


def metrics(accuracy: float, success: float, recovery: float) -> dict[str, Any]:
    return {
        "clean_accuracy": accuracy,
        "clean_accuracy_n": 5_000,
        "attack_success_rate": success,
        "attack_success_rate_n": 4_500,
        "recovery_accuracy": recovery,
        "recovery_accuracy_n": 4_500,
        "clean_accuracy_of_triggered": 0.85,
        "clean_accuracy_of_triggered_n": 4_500,
        "robust_accuracy": [{"attack": "PGD", "epsilon": 8 / 255, "steps": 20, "n": 1_000, "seed": 0, "value": 0.45}],
    }


def found(verdict: str, confidence: float, named: list[int], true: list[int], rate: float | None) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "confidence": confidence,
        "target_labels": named,
        "true_targets": true,
        "accused_images": 2_000 if named else 0,
        "true_positive_rate": rate,
        "false_positive_rate": 0.001,
        "auroc": rate,
    }


def made_up(cell: Cell = CELL, *, success: float = 0.02, detection: dict[str, Any] | None = None, **more: Any) -> Any:
    """A row of a defence that found what there was."""
    true = [cell.target_label] if cell.rate else []
    seen = detection or found(BACKDOOR if true else NONE_FOUND, 0.99, true, true, 0.97 if true else None)
    return {
        "use": cell.use,
        "cell": cell.about() | {"images": 20_000, "digests": {}},
        "defence": {"name": "robust", "settings": {}},
        "infected": metrics(0.9, 0.98, 0.02) | {"attack_success_maximum": 1.0},
        "floor": metrics(0.9, 0.01, 0.8),
        "purified": metrics(0.88, success, 0.8),
        "detections": [seen],
        "seconds": {"train": 100.0, "probe 0": 20.0, "detect 0": 3.0},
        "sources": {"pud/detectors/pud.py": "0" * 16},
        "commit": "abcdef0123456789",
        "clean_tree": True,
        "device": "made up",
        "date": "2026-01-01",
        **more,
    }


def kept(path: Path, *rows: Any) -> list[Any]:
    return [append(row, path) for row in rows]


def section(text: str, title: str) -> list[dict[str, str]]:
    """The rows of the table under a title, by column."""
    lines = [
        line.strip("| ").split(" | ")
        for line in text.split(f"## {title}")[1].split("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


# --------------------------------------------------------------------------------------------------------- the ledger


def test_the_first_run_is_run_1_and_what_comes_later_is_added_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    other = innocent("cifar-dev", 0)
    rows = kept(
        path, made_up(), made_up(other), made_up(), made_up(defence={"name": "scan", "settings": {}}), made_up()
    )
    assert [row["run"] for row in rows] == [1, 1, 2, 1, 3]
    assert read(path) == rows
    assert ledger.first_runs(rows) == [rows[0], rows[1], rows[3]]


def test_what_was_written_stays_as_it_was_byte_for_byte(tmp_path: Path) -> None:
    path, before = tmp_path / "ledger.jsonl", b""
    for _ in range(3):
        kept(path, made_up())
        assert path.read_bytes().startswith(before)
        before = path.read_bytes()


def test_several_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append(made_up(), path), range(24)))
    assert [row["run"] for row in read(path)] == list(range(1, 25))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"run": 1', '"run": 2'),
        lambda text: text + text,
        lambda text: text[:40],
        lambda text: "[]\n",
    ],
    ids=["numbered otherwise", "twice", "cut off", "no row"],
)
def test_a_ledger_that_was_changed_by_hand_is_refused(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    path = tmp_path / "ledger.jsonl"
    kept(path, made_up())
    path.write_text(spoil(path.read_text()))
    with pytest.raises(InputError, match="is no row"):
        read(path)


def test_a_row_of_an_evaluation_cell_is_refused_unless_its_code_is_in_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    cell = infected("cifar", 1_000, BADNETS, 0.1)
    with pytest.raises(InputError, match="in no commit"):
        append(made_up(cell, clean_tree=False), path)
    assert not path.exists()
    kept(path, made_up(cell), made_up(clean_tree=False))
    assert len(read(path)) == 2


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a few files that decide and one that does not."""
    for name in ("pud/detectors/pud.py", "pud/base/files.py", "pud/platform/cli.py", "experiments/splits.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("THRESHOLD = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


@pytest.mark.parametrize("name", ["pud/detectors/pud.py", "pud/base/files.py", "experiments/splits.py"])
def test_a_change_in_a_file_that_decides_changes_the_row_and_spoils_the_tree(checkout: Path, name: str) -> None:
    before = Code.of(checkout)
    assert before.clean_tree
    assert before.commit == git(checkout, "rev-parse", "HEAD").strip()
    (checkout / name).write_text("THRESHOLD = 2\n")
    after = Code.of(checkout)
    assert {key for key in before.sources if before.sources[key] != after.sources[key]} == {name}
    assert before.name != after.name
    assert not after.clean_tree
    assert not before.still(checkout).clean_tree


def test_a_new_file_that_would_decide_spoils_the_tree_and_one_that_does_not_decide_leaves_it(checkout: Path) -> None:
    before = Code.of(checkout)
    (checkout / "pud/platform/cli.py").write_text("# told otherwise\n")
    (checkout / "README.md").write_text("read me\n")
    assert Code.of(checkout) == before
    (checkout / "pud/detectors/other.py").write_text("")
    assert not Code.of(checkout).clean_tree
    assert "pud/detectors/other.py" in sources(checkout)


def test_outside_of_git_no_tree_is_clean(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / "elsewhere")
    assert not Code.of(checkout).clean_tree
    assert changed_since(checkout) is None


def test_all_that_a_run_loads_of_pud_is_among_what_decides_but_how_it_is_started_and_told() -> None:
    told = "import sys, experiments.first_runs; print(*sys.modules)"  # of its own process: tests make modules of theirs
    names = subprocess.run([sys.executable, "-c", told], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    loaded = {name for name in names.split() if name.startswith("pud.")}
    known = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources(ROOT)}
    assert {name.split(".")[1] for name in loaded - known} <= {"platform", "reporting"}
    assert known >= {"pud.detectors.pud", "pud.evidence.probing", "pud.defences.pud", "pud.attacks.badnets"}


def test_the_ledger_begins_with_every_version_of_it_that_was_ever_committed() -> None:
    changed = changed_since(ROOT)
    if changed is None:
        pytest.skip("git knows no commit of results/ledger.jsonl here: nothing to compare with")
    assert changed == [], "rows of the ledger were changed or taken away since these commits"


def test_a_row_that_is_changed_or_taken_away_is_noticed_in_a_shallow_clone_too(checkout: Path, tmp_path: Path) -> None:
    path = checkout / ledger.LEDGER
    commits = []
    for _ in range(2):
        kept(path, made_up())
        git(checkout, "add", ".")
        git(checkout, "commit", "--quiet", "-m", "a row")
        commits.append(git(checkout, "rev-parse", "HEAD").strip())
    kept(path, made_up())
    assert changed_since(checkout) == []
    whole = path.read_text().splitlines(keepends=True)
    path.write_text(whole[0])
    assert changed_since(checkout) == commits[1:]
    path.write_text("".join(whole).replace("0.98", "0.99", 1))
    assert set(changed_since(checkout) or ()) == set(commits)
    clone = tmp_path / "clone"
    git(checkout, "clone", "--quiet", "--depth", "1", checkout.as_uri(), str(clone))
    assert changed_since(clone) == []
    (clone / ledger.LEDGER).write_text("")
    assert changed_since(clone) == commits[1:]


# --------------------------------------------------------------------------------------------------------- its figures


def test_wilson_s_interval_is_that_of_the_closed_form() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    for right, n in ((0, 10), (5, 10), (19, 20), (20, 20)):
        for bound in wilson(right, n):  # the bounds are where the share is 1.96 standard errors away
            if 0 < bound < 1:
                assert abs(right / n - bound) == pytest.approx(1.959964 * (bound * (1 - bound) / n) ** 0.5)
    assert wilson(20, 20)[1] == 1.0


def test_the_interval_has_the_variance_of_the_two_ways_of_clustering() -> None:
    """Of effects of triggers and seeds that add up, it is that of the means of each by its number (Owen 2007)."""
    stream = np.random.default_rng(0)
    one, other = stream.normal(size=30), 2 * stream.normal(size=40)
    values = (one[:, None] + other).ravel()
    triggers, seeds = np.repeat(np.arange(30), 40), np.tile(np.arange(40), 30)
    expected = (one.var() / 30 + other.var() / 40) ** 0.5
    low, high = interval(values, list(map(str, triggers)), list(seeds)) or (0, 0)
    assert (high - low) / 2 / 1.96 == pytest.approx(expected, rel=0.08)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * expected)


def test_cells_of_one_trigger_and_seed_are_one_and_have_no_interval_of_their_own() -> None:
    assert interval(np.array([0.1, 0.9]), ["blend", "blend"], [0, 0]) is None
    stream = np.random.default_rng(1)
    values, seeds = stream.normal(size=20), list(range(20))
    alone = interval(values, ["blend"] * 20, seeds)
    assert interval(np.repeat(values, 5), ["blend"] * 100, list(np.repeat(seeds, 5))) == pytest.approx(alone)


@pytest.fixture
def rows(tmp_path: Path) -> list[Any]:
    """A ledger of evaluation cells: an attack that failed, a defence that failed, a later run that is better."""
    cells = [infected("cifar", seed, planted, 0.1) for planted in (BADNETS, BLEND) for seed in (1_000, 1_001)]
    weak = infected("cifar", 1_000, WANET, 0.003)
    lost = infected("cifar", 1_001, WANET, 0.1)
    missed = found(NONE_FOUND, 0.9, [], [lost.target_label], 0.0)
    failed = infected("cifar", 1_002, WANET, 0.1)
    refused = made_up(failed, detection={}, failed="the defence refused the cell")
    del refused["purified"], refused["floor"]
    refused["detections"] = []
    return kept(
        tmp_path / "ledger.jsonl",
        *map(made_up, cells),
        made_up(weak, infected=metrics(0.9, 0.05, 0.8) | {"attack_success_maximum": 1.0}),
        made_up(lost, success=0.9, detection=missed),
        refused,
        made_up(lost, success=0.01),
        made_up(innocent("cifar", 1_000)),
        made_up(),
    )


def test_every_cell_that_was_run_first_is_shown_and_none_is_dropped(rows: list[Any]) -> None:
    shown = section(page(rows), "Evaluation: every attacked cell")
    assert [row["attack"] for row in shown] == ["badnets"] * 2 + ["blend"] * 2 + ["wanet"] * 3
    assert [row["ASR"] for row in shown] == ["2.0"] * 5 + ["90.0", "–"]
    assert shown[-1]["verdict"] == "failed: the defence refused the cell"
    assert {row["floor"] for row in shown[:-1]} == {"1.0"}
    assert {row["maximum"] for row in shown} == {"100.0"}


def test_means_are_of_first_runs_alone(rows: list[Any]) -> None:
    ((high), (low)) = section(page(rows), "Evaluation: means over attacks")
    assert high["ASR"].startswith("19.6 [")  # (4 x 2 + 90) / 5, without the later run's 1
    assert high["ASR"].endswith("(n=5)")
    assert high["cells"] == "6 (3 triggers, 3 seeds)"
    assert high["targets named"] == "4 of 5"
    assert (low["rate"], low["ASR before"], low["ASR"]) == ("0.003", "5.0", "2.0")


def test_later_runs_and_development_stand_apart(rows: list[Any]) -> None:
    (later,) = section(page(rows), "Later runs of evaluation cells: not evidence")
    assert (later["run"], later["attack"], later["ASR"]) == ("2", "wanet", "1.0")
    (tuned,) = section(page(rows), "Development: settings were chosen on these")
    assert (tuned["pictures"], tuned["run"]) == ("cifar-dev", "1")
    (nobody,) = section(page(rows), "Evaluation: every innocent cell")
    assert (nobody["verdict"], nobody["confidence"], nobody["accused"]) == (NONE_FOUND, "0.990", "0.0")


def test_the_page_says_where_code_was_in_no_commit() -> None:
    shown = section(page([made_up(run=1), made_up(run=2, clean_tree=False)]), "Development")
    assert [row["commit"] for row in shown] == ["abcdef0", "abcdef0 and changes"]


def test_a_scan_claims_nothing_of_a_model_that_it_did_not_purify() -> None:
    row = made_up(run=1, defence={"name": "scan", "settings": {}})
    del row["purified"], row["floor"]
    (shown,) = section(page([row]), "Development: settings were chosen on these")
    assert (shown["ASR before"], shown["ASR"], shown["TPR"], shown["seconds"]) == ("98.0", "–", "97.0", "23")


def test_the_page_in_the_repository_is_of_the_ledger_in_the_repository() -> None:
    assert (ROOT / "docs/first-runs.md").read_text() == page(read(ROOT / ledger.LEDGER))


def test_an_empty_ledger_makes_a_page_that_says_so() -> None:
    text = page([])
    assert "with a first run: 0 of " in text
    assert text.count("Not measured.") == 5


def test_calibration_is_of_first_runs_and_counts_what_was_right(tmp_path: Path) -> None:
    """Twenty innocent cells of which one is accused, twenty missed ones, and later runs that would mend it."""
    path, right, missed = tmp_path / "ledger.jsonl", [], []
    for seed in range(1_000, 1_020):
        clean, bad = innocent("cifar", seed), infected("cifar", seed, BADNETS, 0.1)
        accused = found(BACKDOOR, 0.97, [3], [], None) if seed == 1_000 else None
        right.append(made_up(clean, detection=accused))
        hidden = found(NONE_FOUND, 0.99, [], [bad.target_label], 0.0)
        missed.append(made_up(bad, detection=hidden if seed < 1_005 else None))
    kept(path, *right, *missed, *map(made_up, [innocent("cifar", 1_000)] * 20))
    about = calibration(read(path))[EVALUATION]["robust"]
    (quiet,) = about[NONE_FOUND]["bins"]  # 19 innocent cells, and 5 with a backdoor that nobody saw
    assert (quiet["n"], quiet["right"], quiet["stated"]) == (24, round(19 / 24, 4), 0.99)
    assert quiet["interval"] == [round(bound, 4) for bound in wilson(19, 24)]
    assert quiet["enough"]
    low, high = about[BACKDOOR]["bins"]
    assert (low["n"], low["right"], low["enough"]) == (1, 0.0, False)
    assert (high["n"], high["right"]) == (15, 1.0)
    said = stated(read(path))
    assert said["innocent_and_poisoned_cells"] == [[20, 20], [0, 0]]
    assert said["none_found"] == [round(20 / 26, 2), 0.5]  # 19 right and 5 wrong; nothing is known after a round
    assert said["named"] == [round(16 / 18, 2), 0.5]  # 15 right and 1 wrong


def test_a_confidence_is_of_as_many_innocent_cells_as_poisoned_ones() -> None:
    assert even(0, 0, 0, 0) == 0.5
    assert even(9, 9, 0, 0) == 0.5  # of what was never tried in vain nothing is known
    assert even(4, 4, 20, 40) == round(5 / 8, 2)


def test_the_confidences_that_the_detector_states_are_those_of_the_ledger() -> None:
    said, path = json.loads(confidence.FILE.read_text()), ROOT / ledger.LEDGER
    assert said == {"format": confidence.FORMAT, "ledger": sha256(path), **stated(read(path))}, (
        "python -m experiments.calibration"
    )
    assert DetectConfig().confidence_in_none == tuple(said["none_found"])
    assert DetectConfig().confidence_in_named == tuple(said["named"])


def test_an_accusation_is_wrong_if_any_class_named_is_no_target_and_what_cannot_be_judged_claims_nothing() -> None:
    named = [found(BACKDOOR, 0.9, classes, [1, 2], 1.0) for classes in ([1], [1, 2], [1, 3])]
    silent = found(CANNOT_BE_JUDGED, 0.5, [], [1], 0.0)
    cells = [infected("cifar", seed, BADNETS, 0.1) for seed in range(1_000, 1_004)]
    rows = [made_up(cell, detection=one, run=1) for cell, one in zip(cells, [*named, silent], strict=True)]
    about = calibration(rows)[EVALUATION]["robust"]
    assert about[NONE_FOUND]["n"] == 0
    assert [(one["n"], one["right"]) for one in about[BACKDOOR]["bins"]] == [(3, round(2 / 3, 4))]


def test_the_calibration_file_says_that_there_is_not_enough_and_is_no_cell_of_the_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "ledger.jsonl", tmp_path / "calibration.json"
    (tmp_path / "kept").mkdir()
    kept(path, made_up())
    where = ["--ledger", str(path), "--out", str(out), "--confidence", str(tmp_path / "kept" / "confidence.json")]
    monkeypatch.setattr("sys.argv", ["calibration", *where])
    calibrate()
    assert f"development, backdoor: 1 first runs are not enough, {ENOUGH} are needed" in capfd.readouterr().err
    assert json.loads(out.read_text())["development"]["robust"][BACKDOOR]["n"] == 1
    assert load(tmp_path) == []


# -------------------------------------------------------------------------------------------------------------- a run


@pytest.fixture
def bench(sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> first_runs.Bench:
    """A bench of tiny runs on the sample of Fashion-MNIST."""
    small = Pictures(DEVELOPMENT, "a sample", 10, 200, {"resnet8": 1}, validation=0.2)
    monkeypatch.setitem(PICTURES, "fashion-dev", small)
    monkeypatch.setitem(
        PRESETS, "robust", PurifyConfig(keep=(0.5,), epochs=(1,), doublings=(0,), learning_rate=(0.05,), steps=1)
    )
    few = {"splits": 0, "inversion_steps": 0, "noise_draws": 1, "mix_draws": 1}
    monkeypatch.setattr(first_runs, "ProbeConfig", partial(ProbeConfig, **few))
    monkeypatch.setattr("experiments.entries.PGD_IMAGES", 16)
    monkeypatch.setattr("pud.adversarial.robustness.find_spec", lambda name: None)  # foolbox takes seconds to import
    monkeypatch.setattr(first_runs, "WORK", tmp_path / "first")
    return first_runs.Bench({"fashion-dev": sample_folder}, Code.of(ROOT))


def test_a_cell_is_run_into_a_row_that_goes_into_the_ledger_and_onto_the_page(
    bench: first_runs.Bench, tmp_path: Path
) -> None:
    cell = infected("fashion-dev", 0, BADNETS, 0.1)
    row = append(first_runs.run(bench, cell, "robust"), tmp_path / "ledger.jsonl")
    assert (row["run"], row["use"], row["cell"]["images"]) == (1, DEVELOPMENT, 200)
    assert row["cell"]["target"] == cell.target_label
    assert row["detections"][-1]["true_targets"] == [cell.target_label]
    assert row["sources"] == sources(ROOT)
    assert set(row["seconds"]) == {"train", "probe 0", "detect 0", "purify 1", "probe 1", "detect 1"}
    assert {"probe", "detect", "purify"} <= row["defence"]["settings"].keys()
    assert row["training"]["epochs"] == 1
    assert row["floor"]["sha256"] != row["infected"]["sha256"] != row["purified"]["sha256"]
    assert [one["attack"] for one in row["purified"]["robust_accuracy"]] == ["PGD of pud"]
    counts = {name: value for name, value in row["purified"].items() if name.endswith("_n")}
    assert min(counts.values()) > 0
    assert len(section(page([row]), "Development: settings were chosen on these")) == 1


def test_a_run_that_is_stopped_goes_on_where_it_was(bench: first_runs.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, done = innocent("fashion-dev", 0), []
    for name in ("poison_step", "train_step", "probe_step", "detect_step"):
        step = getattr(first_runs, name)

        def noted(*given: Any, name: str = name, step: Callable[..., Any] = step, **more: Any) -> None:
            done.append(name)
            step(*given, **more)
            raise KeyboardInterrupt

        monkeypatch.setattr(first_runs, name, noted)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            first_runs.run(bench, cell, first_runs.SCAN)
    row = first_runs.run(bench, cell, first_runs.SCAN)
    assert done == ["poison_step", "train_step", "probe_step", "detect_step"]
    assert "purified" not in row
    assert row["cell"]["attack"] == "innocent"
    with pytest.raises(first_runs.TimeIsUp):
        first_runs.run(dataclasses.replace(bench, until=0.0), innocent("fashion-dev", 1), first_runs.SCAN)


@pytest.mark.parametrize(
    ("mapping", "success"), [("all-to-one", 1.0), ("untargeted", 1.0), ("all-to-all", 0.0), ("split", 1.0)]
)
def test_an_attack_can_succeed_as_often_as_the_label_that_it_needs_is_known(
    bench: first_runs.Bench, monkeypatch: pytest.MonkeyPatch, mapping: str, success: float
) -> None:
    """The model takes every image for the class after the next one: never right, and always of the right parity."""
    cell = infected("fashion-dev", 0, Planted("badnets", mapping), 0.1)
    material, _ = bench.material(cell)
    truth, known = material.truth, bench.infected(cell)
    ahead = torch.nn.functional.one_hot(torch.from_numpy((truth.triggered_true_labels + 2) % 10), 10).float()
    monkeypatch.setattr(first_runs, "logits", lambda *given: ahead)
    found = first_runs.measure(material, known)
    assert found["clean_accuracy_of_triggered"] == 0.0
    assert found["attack_success_maximum"] == success


def test_who_hands_over_clean_data_gives_a_model_that_has_seen_others(bench: first_runs.Bench) -> None:
    cell = infected("fashion-dev", 0, Planted("badnets", supplier=WEIGHTS), 0.1)
    planted = dataclasses.replace(cell, supplier="")
    (given, _), (seen, _) = bench.material(cell), bench.material(planted)
    assert bench.infected(cell) == bench.infected(planted)
    assert not given.truth.poisoned.any()
    assert seen.truth.poisoned.any()
    assert np.array_equal(given.truth.triggered_images, seen.truth.triggered_images)
    assert np.array_equal(given.train.labels, given.truth.true_labels)
    row = first_runs.run(bench, cell, first_runs.SCAN)
    assert row["detections"][0]["true_targets"] == [cell.target_label]  # so that "none found" is wrong of it


def test_autoattack_is_run_on_three_cells_of_each_set_of_pictures_and_network() -> None:
    chosen = [cell for cell in planned(EVALUATION) if first_runs.autoattack_images(cell)]
    assert {cell.attack for cell in chosen} == {"badnets", "blend", "wanet"}
    assert len(chosen) == 3 * len({(cell.data, cell.network) for cell in chosen})
    assert not any(map(first_runs.autoattack_images, planned(DEVELOPMENT)))


def test_what_was_run_is_left_alone_and_run_again_only_by_another_code(tmp_path: Path) -> None:
    code = Code({"pud/detectors/pud.py": "0" * 16}, "", True)
    other = dataclasses.replace(code, sources={})
    rows = kept(tmp_path / "ledger.jsonl", made_up())

    def wanted(cell: Cell, defence: str, code: Code, *, again: bool) -> bool:
        return first_runs.is_wanted(cell, rows, defence, code, again=again)

    assert not wanted(CELL, "robust", code, again=False)
    assert not wanted(CELL, "robust", code, again=True)
    assert not wanted(CELL, "robust", other, again=False)
    assert wanted(CELL, "robust", other, again=True)
    assert wanted(CELL, "scan", code, again=False)
    assert wanted(innocent("cifar-dev", 0), "robust", code, again=False)


def test_the_command_runs_what_is_wanted_once_and_names_what_is_left(
    bench: first_runs.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [
        innocent("fashion-dev", 0),
        innocent("cifar-dev", 0),
        infected("fashion-dev", 0, Planted("not-there"), 0.1),
    ]
    monkeypatch.setattr(first_runs, "planned", lambda use: cells)
    monkeypatch.chdir(tmp_path)
    given = ["first_runs", "--set", DEVELOPMENT, "--scan", f"--data=fashion-dev={bench.data['fashion-dev']}"]
    for more in ([], [], ["--list"]):
        monkeypatch.setattr("sys.argv", [*given, *more])
        first_runs.main()
    assert [ledger.key(row) for row in read()] == [(cells[0].name, "scan")]
    assert capsys.readouterr().out.split() == [cell.name for cell in cells[1:]]


def test_a_name_of_no_pictures_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["first_runs", "--set", DEVELOPMENT, "--data", "cifar11=data"])
    with pytest.raises(SystemExit):
        first_runs.main()
    assert "no pictures are called cifar11: choose from cifar-dev" in capsys.readouterr().err


def test_of_several_processes_one_runs_a_cell(bench: first_runs.Bench) -> None:
    with first_runs.claimed(CELL) as mine:
        assert mine
        with first_runs.claimed(CELL) as other:
            assert not other
        with first_runs.claimed(innocent("cifar-dev", 0)) as another:
            assert another
    with first_runs.claimed(CELL) as again:
        assert again


def test_evaluation_is_not_begun_with_code_that_is_in_no_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ledger.Code, "of", classmethod(lambda cls, root: Code({}, "", False)))
    monkeypatch.setattr("sys.argv", ["first_runs", "--set", EVALUATION])
    with pytest.raises(SystemExit):
        first_runs.main()
    assert "is in no commit" in capsys.readouterr().err
