"""The steps on real images: they chain, resume bit for bit, need no truth to defend, and leave nothing half done."""

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from servers import TrackingServer

from pud.adversarial.robustness import EvaluateConfig
from pud.artifacts.detection import load_detection, save_detection
from pud.artifacts.evidence import load_evidence
from pud.artifacts.timing import timing
from pud.attacks.poisoning import PoisonConfig
from pud.base.errors import InputError
from pud.base.files import sha256
from pud.defences.pud import PurifyConfig
from pud.detectors.contract import POISONED
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.platform.cli import app
from pud.platform.local_run import _finish
from pud.reporting.report import load_report
from pud.reporting.tracking import Tracking, close
from pud.steps.detect import detect_step
from pud.steps.evaluate import evaluate_step
from pud.steps.poison import poison_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.train import train_step

POISON = PoisonConfig(train_size=600)
TRAIN = TrainConfig(epochs=2)
PROBE = ProbeConfig(noise_draws=1, mix_draws=1, steps=1, inversion_steps=3)
PURIFY = PurifyConfig(keep=(0.5,), epochs=(1,), doublings=(0,), learning_rate=(0.05,), steps=1)
EVALUATE = EvaluateConfig(pgd_images=50, pgd_steps=3, autoattack_images=0)
SCHEMA = json.loads((Path(__file__).parent / "report.schema.json").read_text())
NOWHERE = "http://127.0.0.1:9"
DEFENCE = ("model", "probe", "detection-1", "state-1", "probe-1", "detection-2", "state-2")


def poisoned(data: Path, out: Path) -> None:
    folders = {"dataset": out / "dataset", "ground_truth": out / "truth"}
    poison_step(f"file:{data}", "", POISON, seed=0, **folders)


def trained(out: Path) -> None:
    train_step(out / "dataset", TRAIN, seed=0, model=out / "model")


def probed(out: Path, model: str = "model", probe: str = "probe") -> None:
    probe_step(out / model, out / "dataset", PROBE, seed=0, probe_folder=out / probe)


def detected(out: Path, probe: str = "probe", detection: str = "detection-1") -> None:
    detect_step(out / "probe", out / probe, DetectConfig(), detection=out / detection)


def purified(out: Path, model: str = "model", detection: str = "detection-1", state: str = "state-1") -> None:
    purify_step(out / model, out / "dataset", out / detection, PURIFY, seed=0, purified=out / state)


def evaluated(
    out: Path,
    stage: str,
    model: str,
    report: str,
    detection: str | None = None,
    previous: str | None = None,
    tracking: Tracking | None = None,
) -> None:
    evaluate_step(
        stage,
        out / model,
        out / "dataset",
        out / "truth",
        EVALUATE,
        report=out / report,
        detection=out / detection if detection else None,
        previous_report=out / previous if previous else None,
        seed=0,
        tracking=tracking,
    )


def defended(out: Path) -> None:
    """Train on the poisoned data set in ``out``, then two rounds."""
    trained(out)
    probed(out)
    detected(out)
    purified(out)
    probed(out, "state-1", "probe-1")
    detected(out, "probe-1", "detection-2")
    purified(out, "state-1", "detection-2", "state-2")


def contents(folder: Path) -> dict[str, str]:
    """Return the digest of every file but timing.json, by its path inside the folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "timing.json"]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def copied(chain: Path, out: Path, *names: str) -> Path:
    for name in names:
        shutil.copytree(chain / name, out / name)
    return out


@pytest.fixture(scope="module")
def chain(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything from poison to the second round, made once. Do not write into it."""
    out = tmp_path_factory.mktemp("chain")
    poisoned(sample_folder, out)
    defended(out)
    return out


def test_the_steps_chain_and_every_output_is_complete(chain: Path) -> None:
    assert {path.name for path in chain.iterdir()} == {"dataset", "truth", *DEFENCE}
    assert contents(chain / "state-2").keys() == {
        "model.safetensors",
        "model.json",
        "teacher.safetensors",
        "clean.npy",
        "accused.npy",
        "state.json",
    }
    for name in ("dataset", "truth", *DEFENCE):
        assert (chain / name / "timing.json").is_file()


def test_a_round_changes_the_model_and_counts_itself(chain: Path) -> None:
    done = [json.loads((chain / f"state-{index}" / "state.json").read_text())["rounds_done"] for index in (1, 2)]
    assert done == [1, 2]
    models = ("model", "state-1", "state-2")
    assert len({sha256(chain / name / "model.safetensors") for name in models}) == len(models)


def test_the_defence_is_byte_for_byte_the_same_without_test_images_and_truth(chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "dataset")
    shutil.rmtree(tmp_path / "dataset" / "test")
    defended(tmp_path)
    for name in DEFENCE:
        assert contents(tmp_path / name) == contents(chain / name), name


CONTINUE = """
from pathlib import Path

import torch

from pud.defences.pud import PurifyConfig
from pud.steps.purify import purify_step

torch.set_num_threads({threads})
config = PurifyConfig(keep=(0.5,), epochs=(1,), doublings=(0,), learning_rate=(0.05,), steps=1)
out, chain = Path({out!r}), Path({chain!r})
purify_step(chain / "state-1", chain / "dataset", chain / "detection-2", config, seed=0, purified=out / "state-2")
"""


def test_a_state_continued_in_a_new_process_equals_two_uninterrupted_rounds(chain: Path, tmp_path: Path) -> None:
    code = CONTINUE.format(out=str(tmp_path), chain=str(chain), threads=torch.get_num_threads())
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert contents(tmp_path / "state-2") == contents(chain / "state-2")


STEPS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "probe": (("dataset", "model"), probed),
    "detection-1": (("probe",), detected),
    "state-1": (("dataset", "model", "detection-1"), purified),
    "report": (("dataset", "model", "truth"), lambda out: evaluated(out, "infected", "model", "report")),
}


@pytest.mark.parametrize("output", ["probe", "detection-1", "state-1"])
def test_a_step_done_again_writes_the_same_bytes_in_place(output: str, chain: Path, tmp_path: Path) -> None:
    inputs, step = STEPS[output]
    copied(chain, tmp_path, *inputs, output)
    (tmp_path / output / "left over").touch()
    step(tmp_path)
    assert contents(tmp_path / output) == contents(chain / output)
    assert {path.name for path in tmp_path.iterdir()} == {*inputs, output}


def test_poisoning_twice_writes_the_same_bytes(chain: Path, sample_folder: Path, tmp_path: Path) -> None:
    poisoned(sample_folder, tmp_path)
    for name in ("dataset", "truth"):
        assert contents(tmp_path / name) == contents(chain / name)


def with_nan(model: Path) -> None:
    """Put a NaN into the first weight of a model folder, as a training that diverged would."""
    tensors = load_file(model / "model.safetensors")
    tensors["head.weight"][0, 0] = torch.nan
    save_file(tensors, model / "model.safetensors")
    card = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**card, "sha256": sha256(model / "model.safetensors")}))


@pytest.mark.parametrize(
    ("output", "mark"), [("probe", "probe.json"), ("state-1", "model.json"), ("report", "report.json")]
)
@pytest.mark.parametrize("older", [False, True])
def test_a_step_that_fails_leaves_what_was_there(
    output: str, mark: str, older: bool, chain: Path, tmp_path: Path
) -> None:
    inputs, step = STEPS[output]
    copied(chain, tmp_path, *inputs)
    with_nan(tmp_path / "model")
    if older:
        (tmp_path / output).mkdir()
        (tmp_path / output / mark).write_text("intact")
    with pytest.raises(InputError, match="NaN"):
        step(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*inputs, *([output] if older else [])}
    if older:
        assert (tmp_path / output / mark).read_text() == "intact"


def test_a_step_that_fails_while_it_writes_leaves_nothing(chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "dataset", "model")
    endless = dataclasses.replace(PROBE, batch_size=0)
    with pytest.raises(ValueError, match="zero"):
        probe_step(tmp_path / "model", tmp_path / "dataset", endless, seed=0, probe_folder=tmp_path / "probe")
    assert {path.name for path in tmp_path.iterdir()} == {"dataset", "model"}


def test_a_truncated_detection_is_refused_by_name(chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "dataset", "model", "detection-1")
    table = (tmp_path / "detection-1" / "detection.parquet").read_bytes()
    (tmp_path / "detection-1" / "detection.parquet").write_bytes(table[: len(table) // 2])
    with pytest.raises(InputError, match=r"detection\.parquet"):
        purified(tmp_path)


LARGE = {
    "detection.parquet": ("detection", "MAXIMUM_ROWS", "detection-1", lambda out: purified(out)),
    "probe.safetensors": ("evidence", "MAXIMUM_BYTES", "probe", lambda out: detected(out)),
}


@pytest.mark.parametrize("file", LARGE)
def test_what_would_fill_the_memory_is_refused_by_name(
    file: str, chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, limit, folder, step = LARGE[file]
    copied(chain, tmp_path, "dataset", "model", folder)
    monkeypatch.setattr(f"pud.artifacts.{module}.{limit}", 10)
    with pytest.raises(InputError, match=rf"{file} (holds|claims) \d"):
        step(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"train": "long"}', '{"train": 1e999}', "[" * 100_000])
def test_a_stranger_s_seconds_are_refused_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "timing.json").write_text(content)
    with pytest.raises(InputError, match=r"timing\.json"):
        timing(tmp_path)


def test_a_detection_without_its_columns_is_refused_by_name(chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "detection-1")
    pd.DataFrame({"index": [1]}).to_parquet(tmp_path / "detection-1" / "detection.parquet")
    with pytest.raises(InputError, match=r"detection\.parquet"):
        load_detection(tmp_path / "detection-1")


SPOILT = {
    "index": lambda table: table["index"][::-1].to_numpy(),
    "suspicion": lambda table: np.where(table.index == 3, np.nan, table["suspicion"]),
    "posterior": lambda table: table["posterior"] + 2,
    "verdict": lambda table: np.where(table.index == 3, "guilty", table["verdict"]),
    "inferred_label": lambda table: table["inferred_label"] + 11,
    "may_unlearn": lambda table: True,
    "given_label": lambda table: table["given_label"].astype(float),
}


@pytest.mark.parametrize("column", SPOILT)
def test_a_detection_with_a_value_that_cannot_be_is_refused_by_name(column: str, chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "detection-1")
    table = pd.read_parquet(tmp_path / "detection-1/detection.parquet")
    table[column] = SPOILT[column](table)
    table.to_parquet(tmp_path / "detection-1/detection.parquet", index=False)
    with pytest.raises(InputError, match=rf"detection\.parquet is missing or corrupt \({column} "):
        load_detection(tmp_path / "detection-1")


def test_what_is_about_another_data_set_is_refused(chain: Path, sample_folder: Path, tmp_path: Path) -> None:
    """As many images of as many classes, drawn by another seed."""
    copied(chain, tmp_path, "model", "probe", "detection-1", "state-1")
    folders = {"dataset": tmp_path / "dataset", "ground_truth": tmp_path / "other-truth"}
    poison_step(f"file:{sample_folder}", "", POISON, seed=1, **folders)
    with pytest.raises(InputError, match=r"detection\.parquet is about other images"):
        purified(tmp_path)
    probed(tmp_path, "state-1", "probe-1")
    with pytest.raises(InputError, match="are about other images"):
        detected(tmp_path, "probe-1", "detection-2")
    shutil.copytree(chain / "truth", tmp_path / "truth")
    with pytest.raises(InputError, match="truth is the ground truth of another data set"):
        evaluated(tmp_path, "infected", "model", "report")


def test_a_detection_whose_text_would_fill_the_memory_is_refused_in_little(chain: Path, tmp_path: Path) -> None:
    """A dictionary holds the text once, however many rows name it."""
    copied(chain, tmp_path, "detection-1")
    path = tmp_path / "detection-1/detection.parquet"
    table = pd.read_parquet(path)
    table["verdict"] = pd.Categorical(["x" * 1_000_000] * len(table))
    table.to_parquet(path, index=False)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"verdict in row 0 is x{40}\)") as refused:
        load_detection(tmp_path / "detection-1")
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("labels", lambda values: values.astype(np.float32)),
        ("features", lambda values: values[:, 0].copy()),
        ("logits", lambda values: values[..., None]),
        ("noise_survival", lambda values: values[:, None]),
        ("heldout", lambda values: values[:, :2].copy()),
        ("trigger_score", lambda values: values[1:].copy()),
        ("scored", lambda values: values[1:].copy()),
    ],
)
def test_evidence_of_another_shape_or_type_is_refused(name: str, change: Any, chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "probe")
    path = tmp_path / "probe/probe.safetensors"
    arrays = load_arrays(path)
    save_arrays({**arrays, name: change(arrays[name])}, path)
    with pytest.raises(InputError, match=r"probe\.safetensors is missing or corrupt"):
        load_evidence(tmp_path / "probe")


def test_evidence_that_is_not_finite_says_nothing(chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "probe")
    path = tmp_path / "probe/probe.safetensors"
    arrays = load_arrays(path)
    save_arrays({**arrays, "trigger_score": np.full_like(arrays["trigger_score"], np.inf)}, path)
    with pytest.raises(InputError, match="trigger_score are not finite"):
        load_evidence(tmp_path / "probe")


@pytest.mark.parametrize("rule", [None, {}, {"confidence": 2}, {"confidence": 0.5, "shares": [0.1], "quantiles": [1]}])
def test_a_probe_whose_rule_for_filled_classes_cannot_be_is_refused(rule: Any, chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "probe")
    about = json.loads((tmp_path / "probe/probe.json").read_text())
    (tmp_path / "probe/probe.json").write_text(json.dumps({**about, "rounds_done": 1, "filled_rule": rule}))
    with pytest.raises(InputError, match=r"filled_rule|FilledRule"):
        load_evidence(tmp_path / "probe")


@pytest.mark.parametrize(
    ("folder", "file", "older", "read"),
    [
        ("probe", "probe.json", "pud-probe/2", load_evidence),
        ("detection-1", "detection.json", "pud-detection/1", load_detection),
    ],
)
def test_what_an_older_version_wrote_is_refused_with_what_to_do(
    folder: str, file: str, older: str, read: Callable[[Path], Any], chain: Path, tmp_path: Path
) -> None:
    copied(chain, tmp_path, folder)
    about = json.loads((tmp_path / folder / file).read_text())
    (tmp_path / folder / file).write_text(json.dumps({**about, "format": older}))
    with pytest.raises(InputError, match=rf"{folder} is a .* of an older version of pud: (probe|detect) again"):
        read(tmp_path / folder)


def test_the_two_probes_of_a_detection_are_not_swapped_unnoticed(chain: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="after round 1: give the infected model's"):
        detect_step(chain / "probe-1", chain / "probe", DetectConfig(), detection=tmp_path / "detection")


def test_a_training_that_diverged_is_no_success(chain: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(TRAIN, learning_rate=1e6, epochs=2)
    with pytest.raises(InputError, match="training has diverged"):
        train_step(chain / "dataset", config, seed=0, model=tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("relabel", "allowed", "relabelled", "unlearned"),
    [(True, True, 20, 30), (False, True, 0, 60), (True, False, 20, 0), (False, False, 0, 0)],
)
def test_an_accused_image_is_unlearned_if_detection_allows_it_and_its_true_label_is_unknown(
    relabel: bool, allowed: bool, relabelled: int, unlearned: int, chain: Path, tmp_path: Path
) -> None:
    """Of 60 accused 10 show their label, 20 another, and of 30 nobody knows. Cleared in the next round, none is."""
    copied(chain, tmp_path, "model", "dataset", "detection-1")
    table = pd.read_parquet(tmp_path / "detection-1/detection.parquet")
    table["verdict"] = np.where(table.index < 60, "poisoned", "clean")
    table.loc[60:69, "verdict"] = "unsure"
    table["may_unlearn"] = (table.index < 60) & allowed
    table["inferred_label"] = -1
    table.loc[:9, "inferred_label"] = table["given_label"][:10]
    table.loc[10:29, "inferred_label"] = (table["given_label"][10:30] + 1) % 10
    table.to_parquet(tmp_path / "detection-1/detection.parquet", index=False)
    config = dataclasses.replace(PURIFY, relabel=relabel, epochs=(0,))
    folders = [tmp_path / name for name in ("model", "dataset", "detection-1")]
    facts = purify_step(*folders, config, seed=0, purified=tmp_path / "state-1")
    assert (facts["relabelled_images"], facts["unlearned_images"]) == (relabelled, unlearned)
    clean = np.load(tmp_path / "state-1/clean.npy")
    assert not clean[:10].any()
    assert not clean[30:70].any()
    assert (clean[10:30] == relabel).all()
    assert clean[70:].mean() == pytest.approx(PURIFY.keep[0], abs=0.02)
    table["verdict"], table["inferred_label"], table["may_unlearn"] = "clean", -1, False
    table.to_parquet(tmp_path / "detection-1/detection.parquet", index=False)
    facts = purify_step(tmp_path / "state-1", *folders[1:], config, seed=0, purified=tmp_path / "state-2")
    assert (facts["relabelled_images"], facts["unlearned_images"]) == (0, 0)
    assert not np.load(tmp_path / "state-2/clean.npy")[:60].any()


def test_a_relabelled_image_is_trained_under_what_it_shows(chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "model", "dataset", "detection-1")
    table = pd.read_parquet(tmp_path / "detection-1/detection.parquet")
    weights = []
    for further in (1, 2):
        table["verdict"] = np.where(table.index < 60, "poisoned", "clean")
        table["inferred_label"] = np.where(table.index < 60, (table["given_label"] + further) % 10, -1)
        table.to_parquet(tmp_path / "detection-1/detection.parquet", index=False)
        folders = [tmp_path / name for name in ("model", "dataset", "detection-1")]
        purify_step(*folders, PURIFY, seed=0, purified=tmp_path / f"state-{further}")
        weights.append((tmp_path / f"state-{further}/model.safetensors").read_bytes())
    assert weights[0] != weights[1]


def test_where_nothing_is_clean_the_model_stays_as_it_is(chain: Path, tmp_path: Path) -> None:
    copied(chain, tmp_path, "dataset", "model")
    judged, made = load_detection(chain / "detection-1")
    labels = np.load(chain / "dataset" / "train" / "labels.npy")
    accused = dataclasses.replace(judged, verdict=np.full(len(labels), POISONED))
    (tmp_path / "detection-1").mkdir()
    save_detection(tmp_path / "detection-1", accused, labels, {key: made[key] for key in ("rounds_done", "settings")})
    purified(tmp_path)
    unchanged = sha256(chain / "model" / "model.safetensors")
    assert sha256(tmp_path / "state-1" / "model.safetensors") == unchanged
    assert sha256(tmp_path / "state-1" / "teacher.safetensors") == unchanged
    assert json.loads((tmp_path / "state-1" / "state.json").read_text())["rounds_done"] == 1


@pytest.fixture(scope="module")
def reports(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reports of three stages, each an extension of the one before."""
    out = copied(chain, tmp_path_factory.mktemp("reports"), "dataset", "truth", *DEFENCE)
    evaluated(out, "infected", "model", "infected")
    evaluated(out, "round", "state-1", "round", "detection-1", "infected")
    evaluated(out, "purified", "state-1", "purified", "detection-2", "round")
    return out


def test_every_evaluate_extends_the_report_before_it(reports: Path) -> None:
    first, second, third = (load_report(reports / name) for name in ("infected", "round", "purified"))
    assert first["rounds"] == []
    assert (second["infected"], len(second["rounds"])) == (first["infected"], 1)
    assert (third["infected"], third["rounds"]) == (second["infected"], second["rounds"])
    made = [("model",), ("state-1", "detection-1"), ("detection-2",)]
    spent = [sum(sum(timing(reports / name).values()) for name in names) for names in made]
    sums = [report["seconds"] for report in (first, second, third)]
    assert sums == pytest.approx(np.cumsum(spent), abs=0.02)
    assert (reports / "purified" / "rounds.csv").read_text().count("\n") == 4


def test_an_evaluation_done_again_writes_the_same_report(reports: Path) -> None:
    first = contents(reports / "infected")
    evaluated(reports, "infected", "model", "infected")
    assert contents(reports / "infected") == first


def test_the_last_report_satisfies_the_schema(reports: Path) -> None:
    jsonschema.validate(load_report(reports / "purified"), SCHEMA)


def test_the_schema_notices_what_is_missing_or_out_of_range(reports: Path) -> None:
    whole = load_report(reports / "purified")
    unfinished = {key: value for key, value in whole.items() if key != "purified"}
    too_large = {**whole, "infected": {**whole["infected"], "clean_accuracy": 97.0}}
    unjudged = {**whole, "rounds": [{key: whole["rounds"][0][key] for key in whole["infected"]}]}
    for wrong in (unfinished, too_large, unjudged):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def test_a_lost_tracking_server_costs_no_report_and_its_password_is_told_nobody(
    reports: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copied(reports, tmp_path, "dataset", "truth", "model", "detection-1")
    tracking = Tracking(NOWHERE.replace("://", "://somebody:opensesame@"), "pud", "lost")
    evaluated(tmp_path, "infected", "model", "infected", tracking=tracking)
    evaluated(tmp_path, "purified", "model", "purified", "detection-1", "infected", tracking)
    text = (tmp_path / "purified" / "untracked.json").read_text()
    assert [(row["stage"], row["uri"]) for row in json.loads(text)] == [("infected", NOWHERE), ("purified", NOWHERE)]
    assert load_report(tmp_path / "purified")["infected"]["clean_accuracy_n"] > 0
    assert "sesame" not in "".join([text, *capfd.readouterr()])


def test_a_tracking_server_killed_in_the_middle_gets_the_rest_by_the_command_that_the_run_prints(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(chain, tmp_path, "dataset", "truth", *DEFENCE)
    stages = {"infected": ("model", None), "round": ("state-1", "detection-1"), "purified": ("state-1", "detection-2")}
    (tmp_path / "mlflow").mkdir()
    server = TrackingServer(tmp_path / "mlflow")
    try:
        server.start()
        for experiment in ("undisturbed", "killed"):
            previous = None
            for stage, (model, detection) in stages.items():
                report, tracking = f"{experiment}-{stage}", Tracking(server.uri, experiment, "a run")
                evaluated(tmp_path, stage, model, report, detection, previous, tracking)
                previous = report
                if experiment == "killed":
                    server.kill()
            if experiment == "undisturbed":
                close(tracking, "FINISHED")
        run = tmp_path / "it's a run"
        shutil.copytree(tmp_path / "killed-purified", run / "kfp" / "report")
        _finish(run, time.time(), tracking)
        told = capsys.readouterr().err.splitlines()[-1]
        server.start()
        done = CliRunner().invoke(app, shlex.split(told.partition("pud ")[2]))
        assert done.exception is None, done.exception
        assert [line.split()[0] for line in done.output.splitlines()] == ["round", "purified"]
        assert server.content("killed") == server.content("undisturbed")
    finally:
        server.kill()


def test_what_was_not_judged_is_said_with_its_classes_and_what_would_mend_the_model(
    chain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A model whose normaliser is wrong does not know its own images."""
    out = copied(chain, tmp_path, "dataset")
    train_step(out / "dataset", TrainConfig(epochs=8, batch_size=50), seed=0, model=out / "model")
    weights = load_file(out / "model" / "model.safetensors")
    save_file({**weights, "std": weights["std"] / 255}, out / "model" / "model.safetensors")
    card = json.loads((out / "model" / "model.json").read_text())
    card |= {"std": [value / 255 for value in card["std"]], "sha256": None}
    (out / "model" / "model.json").write_text(json.dumps(card))
    probed(out)
    detected(out)
    about = json.loads((out / "detection-1" / "detection.json").read_text())
    assert about["verdict_code"] == "cannot be judged"
    assert about["verdict"].startswith("cannot be judged: class 0 (T-shirt/top): ")
    assert set(about["unjudged"]) == {str(label) for label in range(10)}
    assert "if the normalisation were" in about["hint"]
    assert load_detection(out / "detection-1")[0].unjudged.keys() == set(range(10))
    told = capfd.readouterr().err
    assert "of its training images their label" in told
    assert about["hint"] in told
    assert "none found" not in told
