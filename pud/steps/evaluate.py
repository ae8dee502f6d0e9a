"""Step evaluate: the only one that opens the ground truth. Measures a model and a detection, extends the report."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pud.adversarial.robustness import (
    EvaluateConfig,
    autoattack_accuracy,
    check_attacks,
    masking_checks,
    robust_accuracy,
)
from pud.artifacts.detection import load_detection
from pud.artifacts.ground_truth import check_about, load_truth
from pud.artifacts.model import load_model
from pud.artifacts.timing import timed_folder, timing
from pud.attacks.ground_truth import GroundTruth
from pud.base.config import as_parameters
from pud.base.device import prepare_process, resolve_device
from pud.base.errors import without_userinfo
from pud.base.progress import say
from pud.data.images import LabelledImages, pixels
from pud.data.readers import open_split
from pud.evaluation.drift import adversarial_drift
from pud.evaluation.metrics import attack_success_rate, clean_accuracy, detection_metrics, recovery_accuracy
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.reporting.report import FORMAT, INFECTED, PURIFIED, ROUND, UNTRACKED, load_report, save_report
from pud.steps.probe import matching

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking


def accuracies(model: Classifier, test: LabelledImages, truth: GroundTruth, device: torch.device) -> dict[str, Any]:
    """Return clean accuracy, attack success rate and recovery accuracy, each with its number of images."""
    triggered, labels = logits(model, truth.triggered_images, device), torch.from_numpy(test.labels)
    targets, true_labels = truth.triggered_target_labels, truth.triggered_true_labels
    return {
        "clean_accuracy": clean_accuracy(logits(model, test.images, device), labels),
        "clean_accuracy_n": len(labels),
        "attack_success_rate": attack_success_rate(triggered, torch.from_numpy(targets)),
        "attack_success_rate_n": len(triggered),
        "recovery_accuracy": recovery_accuracy(triggered, torch.from_numpy(true_labels)),
        "recovery_accuracy_n": len(triggered),
    }


def first(test: LabelledImages, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the first test images in [0, 1], (count, c, h, w), and labels, (count,), on the device."""
    return pixels(test.images[:count]).to(device), torch.from_numpy(test.labels[:count]).to(device)


def drift(
    model: Classifier, test: LabelledImages, truth: GroundTruth, count: int, device: torch.device, *, seed: int
) -> dict[str, Any]:
    """Return where the adversarial examples of the first ``count`` images that can be triggered go."""
    few = slice(count)
    pairs = (test.images[truth.triggered_source[few]], truth.triggered_images[few])
    facts = (truth.triggered_true_labels[few], truth.triggered_target_labels[few])
    moved = [pixels(part).to(device) for part in pairs] + [torch.from_numpy(part).to(device) for part in facts]
    return dataclasses.asdict(adversarial_drift(model, *moved, seed=seed))


def evaluate_step(
    stage: str,
    model: Path,
    dataset: Path,
    ground_truth: Path,
    config: EvaluateConfig,
    *,
    report: Path,
    detection: Path | None = None,
    previous_report: Path | None = None,
    seed: int,
    device: str = "auto",
    architecture: str | None = None,
    git_commit: str = "",
    data_uri: str = "",
    tracking: "Tracking | None" = None,
) -> dict[str, float]:
    """Measure ``model`` at a stage (infected, round or purified) and write the longer report into ``report``.

    Args:
        architecture: see ``load_model``.
        detection: what was detected at this stage; the infected model is judged by none.
        previous_report: the report that this one extends; the infected stage begins a new one.
        tracking: where MLflow is; None keeps the report as the only record. If MLflow is lost, the run goes on and the
            report's folder says what was not recorded.
    """
    prepare_process()
    where = resolve_device(device)
    check_attacks(autoattack=stage == PURIFIED and config.autoattack_images > 0)
    inputs = [model, dataset, ground_truth, *(one for one in (detection, previous_report) if one)]
    with timed_folder(report, "evaluate", "report.json", *inputs) as folder:
        network, card = load_model(model, where, architecture=architecture)
        test = matching(open_split(dataset / "test"), card.classes, card.input_shape, model)
        train = open_split(dataset / "train")
        truth, about = load_truth(ground_truth)
        check_about(truth, train, test, ground_truth)
        judged, made = load_detection(detection, train.labels) if detection else (None, {})
        content = load_report(previous_report) if previous_report else _begin(about, test, seed, git_commit, data_uri)
        x, y = first(test, max(config.pgd_images, config.autoattack_images, config.masking_images), where)
        some = slice(config.pgd_images)
        result = accuracies(network, test, truth, where)
        result["robust_accuracy"] = [robust_accuracy(network, x[some], y[some], config, seed=seed)]
        parameters = {"train" if stage == INFECTED else "purify": card.training, "evaluate": as_parameters(config)}
        result["drift"] = drift(network, test, truth, config.drift_images, where, seed=seed)
        if judged:
            parameters |= made["settings"]
            result["detection"] = detection_metrics(judged, truth)
        made_here = {INFECTED: (model,), ROUND: (model, detection), PURIFIED: (detection,)}[stage]
        spent = sum(sum(timing(one).values()) for one in made_here if one)
        if stage == ROUND:
            result["seconds"] = spent
            content["rounds"].append(result)
        else:
            content[stage] = result
        if stage == PURIFIED:
            if count := config.autoattack_images:
                attacked, _ = autoattack_accuracy(network, x[:count], y[:count], config, seed=seed)
                result["robust_accuracy"].append(attacked)
            if count := config.masking_images:
                result["masking_checks"] = masking_checks(network, x[:count], y[:count], config, seed=seed)
            result["seconds"] = sum(row["seconds"] for row in content["rounds"])
        content["seconds"] = round(content["seconds"] + spent, 2)
        save_report(folder, content)
        _track(folder, previous_report, tracking, content, stage, model, detection, parameters)
    return {key: result[key] for key in ("clean_accuracy", "attack_success_rate", "recovery_accuracy")}


def _begin(about: dict[str, Any], test: Any, seed: int, git_commit: str, data_uri: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema": 2,
        "command": "pipeline",
        "seed": seed,
        "git_commit": git_commit,
        "dataset": {
            "name": test.name,
            "digest": about["source"],
            "uri": without_userinfo(data_uri),
            "train_images": about["train_size"],
        },
        "attack": {
            "name": about["attack"],
            "settings": about.get("attack_settings", {}),
            **{key: about[key] for key in ("mapping", "poison_rate", "target_label")},
        },
        "rounds": [],
        "seconds": 0.0,
    }


def _track(
    folder: Path,
    previous: Path | None,
    tracking: "Tracking | None",
    content: dict[str, Any],
    stage: str,
    model: Path,
    detection: Path | None,
    parameters: dict[str, Any],
) -> None:
    """Record the stage in MLflow, or, where it is lost, in ``untracked.json`` beside the report."""
    lost = []
    if previous and (previous / UNTRACKED).is_file():
        lost = json.loads((previous / UNTRACKED).read_text())
    if tracking:
        from pud.reporting.tracking import LOST, log_stage  # three seconds of imports

        step = 0 if stage == INFECTED else len(content["rounds"]) + (stage == PURIFIED)
        try:
            log_stage(tracking, content, stage, step=step, model=model, detection=detection, parameters=parameters)
        except LOST as error:
            uri = without_userinfo(tracking.uri)
            say(f"MLflow at {uri} was lost at stage {stage}: the run goes on, its report keeps the record")
            files = {"model": str(model.resolve()), "detection": str(detection.resolve()) if detection else None}
            where = {"uri": uri, **{key: getattr(tracking, key) for key in ("experiment", "run_key", "name")}}
            reason = without_userinfo(error)[:500]
            about = {"stage": stage, "step": step, "reason": reason, "parameters": parameters}
            lost.append(about | files | where)
    if lost:
        (folder / UNTRACKED).write_text(json.dumps(lost, indent=2) + "\n")
