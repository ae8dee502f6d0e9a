"""What a user gets wrong: one sentence that names it, an exit code, no traceback and no output folder."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pud.adversarial.robustness import EvaluateConfig
from pud.artifacts.detection import FORMAT
from pud.artifacts.model import ModelCard, save_model
from pud.attacks import ATTACKS
from pud.attacks.poisoning import PoisonConfig
from pud.base.config import as_parameters, words_of
from pud.base.files import sha256, write_json
from pud.data.readers import open_split
from pud.defences import DEFENCES
from pud.defences.pud import PurifyConfig
from pud.detectors import DETECTORS
from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, NONE_FOUND
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.platform.cli import SECTIONS, app, main

NOWHERE = "http://127.0.0.1:9"
OUTPUTS = ("out", "truth")


@dataclasses.dataclass(frozen=True)
class Desk:
    """Where a row of bad input works: the folder, a good data set, a good model, and copies of both to break."""

    folder: Path
    data: Path
    model: Path

    def broken_data(self, labels: Callable[[np.ndarray], np.ndarray]) -> Path:
        """Return a copy of the data set whose training labels are changed, its digests right."""
        copy = self.folder / "data"
        shutil.copytree(self.data, copy)
        path = copy / "train" / "labels.npy"
        np.save(path, labels(np.load(path)))
        info = json.loads((copy / "train" / "dataset.json").read_text())
        info["sha256"]["labels.npy"] = sha256(path)
        (copy / "train" / "dataset.json").write_text(json.dumps(info))
        return copy

    def broken_model(self, *, nan: bool = False, cut: bool = False, **card: object) -> Path:
        """Return a copy of the model with NaN in its weights, half of its weights, or another model.json."""
        copy = self.folder / "model"
        shutil.copytree(self.model, copy)
        weights = copy / "model.safetensors"
        if nan:
            save_file({**load_file(weights), "head.bias": torch.full((10,), torch.nan)}, weights)
        if cut:
            weights.write_bytes(weights.read_bytes()[:1000])
        content = {**json.loads((copy / "model.json").read_text()), "sha256": sha256(weights), **card}
        (copy / "model.json").write_text(json.dumps(content))
        return copy

    def poison(self, *options: str, data: Path | None = None) -> list[str]:
        folders = ["--dataset", str(self.folder / "out"), "--ground-truth", str(self.folder / "truth")]
        return ["poison", "--data-uri", f"file:{data or self.data}", *folders, "--train-size", "500", *options]

    def probe(self, *, model: Path | None = None, data: Path | None = None) -> list[str]:
        inputs = ["--model", str(model or self.model), "--dataset", str(data or self.data)]
        return ["probe", *inputs, "--out", str(self.folder / "out")]

    def train(self, *options: str) -> list[str]:
        return ["train", "--dataset", str(self.data), "--model", str(self.folder / "out"), *options]

    def purify(self, *options: str) -> list[str]:
        inputs = ["--model", str(self.model), "--dataset", str(self.data), "--detection", str(self.folder / "nothing")]
        return ["purify", *inputs, "--out", str(self.folder / "out"), *options]

    def detect(self, *options: str) -> list[str]:
        nothing = str(self.folder / "nothing")
        return ["detect", "--infected-probe", nothing, "--probe", nothing, "--detection", nothing, *options]

    def run(self, *options: str) -> list[str]:
        return ["run", "--data-uri", f"file:{self.data}", "--runs", str(self.folder / "out"), *options]


@pytest.fixture(scope="module")
def model(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the sample's shape."""
    split = open_split(sample_folder / "train")
    card = ModelCard("resnet8", [1, 28, 28], list(split.classes), [0.3], [0.3], {}, {})
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, card.build(), card)
    return folder


@pytest.fixture
def desk(sample_folder: Path, model: Path, tmp_path: Path) -> Desk:
    return Desk(tmp_path, sample_folder, model)


def said(status: int, output: str, thing: str, desk: Desk) -> None:
    """Check what a refused command said and left behind."""
    assert status == 2
    assert "Traceback" not in output
    (line,) = output.splitlines()
    assert line.startswith("pud: error: ")
    assert thing in line
    assert "opensesame" not in line
    assert not [path for path in desk.folder.iterdir() if path.name.startswith(OUTPUTS)]


# name: (the arguments, what the sentence must name)
ROWS: dict[str, tuple[Callable[[Desk], list[str]], str]] = {
    "missing data": (lambda d: d.poison(data=d.folder / "nowhere"), "nowhere"),
    "another scheme": (lambda d: [*d.poison(), "--data-uri", "s3://bucket/data"], "s3://bucket/data"),
    "another digest": (lambda d: d.poison("--data-digest", "0123.dir"), "0123.dir"),
    "unknown attack": (lambda d: d.poison("--attack", "sparkle"), "unknown attack 'sparkle'"),
    "unknown attack of a run": (lambda d: d.run("--no-tracking", "--attack", "sparkle"), "unknown attack 'sparkle'"),
    "settings of another attack": (lambda d: d.poison("--attack-settings", '{"ratio": 0.1}'), "no setting ratio"),
    "attack settings that are no mapping": (lambda d: d.poison("--attack-settings", "3"), "--attack-settings is '3'"),
    "negative poison": (lambda d: d.poison("--poison-rate", "-0.5"), "poison_rate is '-0.5'"),
    "only poison": (lambda d: d.poison("--poison-rate", "1"), "poison rate 1"),
    "target class not there": (lambda d: d.poison("--target-label", "10"), "target class 10"),
    "more images than there are": (lambda d: d.poison("--train-size", "70000"), "train size 70000"),
    "labels outside the classes": (lambda d: d.probe(data=d.broken_data(lambda labels: labels + 1)), "labels.npy"),
    "negative labels": (lambda d: d.probe(data=d.broken_data(lambda labels: labels - 1)), "-1..8"),
    "missing model": (lambda d: d.probe(model=d.folder / "nowhere"), "nowhere"),
    "unknown architecture": (lambda d: d.probe(model=d.broken_model(architecture="vgg99")), "'vgg99'"),
    "another architecture": (lambda d: d.probe(model=d.broken_model(architecture="resnet18")), "model.safetensors"),
    "another input shape": (lambda d: d.probe(model=d.broken_model(input_shape=[1, 32, 32])), "[1, 32, 32]"),
    "NaN weights": (lambda d: d.probe(model=d.broken_model(nan=True)), "NaN"),
    "corrupt weights": (lambda d: d.probe(model=d.broken_model(cut=True)), "model.safetensors"),
    "weights of another digest": (lambda d: d.probe(model=d.broken_model(sha256="00")), "model.safetensors"),
    "unknown device": (lambda d: d.train("--device", "abacus"), "'abacus'"),
    "a schedule that is no list": (lambda d: d.purify("--keep", "most"), "keep"),
    "unknown detector": (lambda d: d.detect("--detector", "oracle"), "unknown detector 'oracle'"),
    "unknown defence": (lambda d: d.purify("--defence", "prayer"), "unknown defence 'prayer'"),
    "settings of another defence": (lambda d: d.purify("--defence", "ft-sam", "--keep", "[1]"), "no setting keep"),
    "a preset of another defence": (lambda d: d.purify("--defence", "ft-sam", "--preset", "aft"), "no setting preset"),
    "settings of a defence by name": (lambda d: d.purify("--settings", '{"clean_share": 1}'), "no setting clean_share"),
    "missing detection": (lambda d: d.purify(), "detection.json"),
    "unreachable MLflow": (lambda d: d.run("--tracking-uri", NOWHERE), NOWHERE),
    "a password": (
        lambda d: d.run("--tracking-uri", NOWHERE.replace("://", "://somebody:opensesame@")),
        f"MLflow at {NOWHERE}",
    ),
    "missing pipeline": (lambda d: d.run("--no-tracking", "--pipeline", "nowhere.yaml"), "nowhere.yaml"),
    "a pipeline that is none": (lambda d: d.run("--no-tracking", "--pipeline", "dvc.yaml"), "not a compiled pipeline"),
    "parameter of no pipeline": (lambda d: d.run("--no-tracking", "-p", "trigga=blend"), "no parameter trigga"),
    "parameter without a value": (lambda d: d.run("--no-tracking", "-p", "train_size"), "'train_size'"),
    "a run that is called latest": (lambda d: d.run("--no-tracking", "--name", "latest"), "'latest'"),
    "a run elsewhere": (lambda d: d.run("--no-tracking", "--name", "../evil"), "'../evil'"),
    "settings of no step": (
        lambda d: d.run("--no-tracking", "-p", 'purify_settings={"kept": 1}'),
        "PurifyConfig has no setting kept",
    ),
    "settings without names": (lambda d: d.run("--no-tracking", "-p", "train_settings=slow"), "train_settings"),
    "an output that is its own input": (lambda d: [*d.probe(), "--out", str(d.model)], "would be lost"),
    "a folder that cannot be made": (lambda d: [*d.train(), "--model", "/proc/nowhere/out"], "/proc/nowhere"),
    "unknown data set": (lambda d: ["fetch", "imagenet-22k", "--out", str(d.folder / "out")], "'imagenet-22k'"),
    "seed of more than 53 bits": (lambda d: d.train("--seed", str(2**53 + 1)), f"seed {2**53 + 1}"),
    "seed of more than 63 bits": (lambda d: d.poison("--seed", str(2**63)), f"seed {2**63}"),
    "seed of a run": (lambda d: d.run("--no-tracking", "--seed", str(2**63)), f"seed {2**63}"),
    "seed as a parameter": (lambda d: d.run("--no-tracking", "-p", f"seed={2**53 + 1}"), "parameter seed"),
    "more epochs than a number": (lambda d: d.train("--epochs", str(2**64)), "epochs"),
    "a run without data": (lambda d: d.run("--no-tracking", "--data-uri", str(d.folder / "nowhere")), "a data set is"),
    "poison without data": (lambda d: [*d.poison(), "--data-uri", str(d.folder)], "a data set is"),
    "no report": (lambda d: ["report", str(d.folder)], "report.json"),
}


@pytest.mark.parametrize("row", ROWS)
def test_bad_input_is_one_sentence(
    row: str, desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, thing = ROWS[row]
    monkeypatch.setattr(sys, "argv", ["pud", *arguments(desk)])
    with pytest.raises(SystemExit) as exit_of:
        main()
    said(exit_of.value.code, capfd.readouterr().err, thing, desk)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_one_sentence(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pud", *desk.train("--device", "cuda")])
    with pytest.raises(SystemExit) as exit_of:
        main()
    said(exit_of.value.code, capfd.readouterr().err, "'cuda'", desk)


@pytest.mark.parametrize("row", ["unknown attack", "unreachable MLflow"])
def test_the_installed_command_says_the_same(row: str, desk: Desk) -> None:
    arguments, thing = ROWS[row]
    command = [Path(sys.executable).with_name("pud"), *arguments(desk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said(done.returncode, done.stderr, thing, desk)


def types(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["pud", *arguments])
    with pytest.raises(SystemExit) as exit_of:
        main()
    return exit_of.value.code or 0


NO_PASSES = ["--splits", "0", "--noise-draws", "0", "--mix-draws", "0", "--inversion-steps", "0"]
FILL: dict[str, Callable[[Desk, str], list[str]]] = {
    "poison": lambda d, out: [*d.poison(), "--dataset", out],
    "train": lambda d, out: ["train", "--dataset", str(d.data), "--model", out, "--epochs", "1"],
    "probe": lambda d, out: [*d.probe(), "--out", out, *NO_PASSES],
}


@pytest.mark.parametrize("step", FILL)
def test_a_step_on_a_full_disk_is_one_sentence(
    step: str, desk: Desk, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert types(monkeypatch, *FILL[step](desk, str(small_disk / "result"))) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("pud: error: ")
    assert "result cannot be written: the disk took no more" in last
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_outside_a_step_is_one_sentence_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pud.platform.cli.load_report", full)
    assert types(monkeypatch, "report", str(desk.folder)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "no room left" in line
    assert "MB are free there" in line


def test_the_tracking_server_of_the_environment_is_used_and_the_command_line_wins(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    assert types(monkeypatch, *desk.run()) == 2
    assert f"MLflow at {NOWHERE}" in capfd.readouterr().err
    other = NOWHERE.replace(":9", ":10")
    assert types(monkeypatch, *desk.run("--tracking-uri", other)) == 2
    assert f"MLflow at {other}" in capfd.readouterr().err
    assert types(monkeypatch, "run", "--help") == 0
    assert "MLFLOW_TRACKING_URI" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"verdict_code": NONE_FOUND}, 0),
        ({"verdict_code": BACKDOOR}, 3),
        ({"verdict_code": CANNOT_BE_JUDGED}, 4),
    ],
)
@pytest.mark.parametrize("asked", [True, False])
def test_detect_tells_its_verdict_by_the_exit_code_where_it_is_asked_to(
    said: dict[str, object], code: int, asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect_step(
        infected_probe: Path, probe: Path, config: object, *, detector: str, detection: Path
    ) -> dict[str, float]:
        write_json(detection / "detection.json", {"format": FORMAT, **said})
        return {}

    monkeypatch.setattr("pud.steps.detect.detect_step", detect_step)
    folders = ["--infected-probe", "x", "--probe", "x", "--detection", str(tmp_path)]
    assert types(monkeypatch, "detect", *folders, *(["--exit-code"] if asked else [])) == (code if asked else 0)


def test_detect_on_bad_input_exits_with_2_in_any_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = str(tmp_path / "nothing")
    folders = ["--infected-probe", nothing, "--probe", nothing, "--detection", nothing]
    assert types(monkeypatch, "detect", *folders, "--exit-code") == 2


def test_the_help_lists_every_command_once_and_begins_with_the_first_to_type(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert sorted(names) == sorted(app.commands)
    assert types(monkeypatch, "--help") == 0
    text = capfd.readouterr().out
    listed = [text.index(f"\n  {name} ") for name in names]
    assert listed == sorted(listed)
    assert text.index("pud fetch") < listed[0]


CONFIGS = [PoisonConfig, TrainConfig, ProbeConfig, PurifyConfig, EvaluateConfig]
CONFIGS += [entry.config for entry in (*ATTACKS.entries().values(), *DETECTORS.entries().values())]
CONFIGS += [type(entry.configure({})) for entry in DEFENCES.entries().values()]


@pytest.mark.parametrize("config", dict.fromkeys(CONFIGS))
def test_every_setting_has_a_word_of_help(config: type) -> None:
    assert [name for name in as_parameters(config()) if not words_of(config, name)] == []


@pytest.mark.parametrize("command", app.commands)
def test_every_option_of_every_command_has_a_word_of_help(command: str) -> None:
    options = [one for one in app.commands[command].params if one.param_type_name == "option"]
    assert [one.name for one in options if not one.help or one.help.startswith("[")] == []
