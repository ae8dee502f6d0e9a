"""Step evaluate: measures a model and a detection, and extends the report.

It alone opens the ground truth, where there is one. A model and data from outside have none: then it measures what can
be measured all the same.
"""

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
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.errors import without_userinfo
from pud.base.progress import say
from pud.data.images import LabelledImages, pixels
from pud.data.readers import open_split
from pud.detectors.contract import CLEAN, Detection
from pud.evaluation.drift import adversarial_drift
from pud.evaluation.metrics import (
    accusations,
    attack_success_rate,
    classification,
    clean_accuracy,
    detection_metrics,
    recovery_accuracy,
)
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.reporting.report import FORMAT, INFECTED, PURIFIED, ROUND, UNTRACKED, load_report, save_report, scalars_of
from pud.steps.probe import matching

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking


CLASSIFICATION = "classification.json"  # beside a report: what a user interface draws of a detection


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


def accuracies_by_labels(
    model: Classifier, train: LabelledImages, test: LabelledImages | None, device: torch.device
) -> dict[str, Any]:
    """Return accuracy on the given labels, and clean accuracy where there are test images: all without a truth."""
    result: dict[str, Any] = {}
    for name, split in (("given_label_accuracy", train), ("clean_accuracy", test)):
        if split is not None:
            result[name] = clean_accuracy(logits(model, split.images, device), torch.from_numpy(split.labels))
            result[f"{name}_n"] = len(split.labels)
    return result


def attacked_images(
    train: LabelledImages, test: LabelledImages | None, judged: Detection | None, count: int, *, seed: int
) -> LabelledImages:
    """Return images of which the first ``count`` are attacked for robust accuracy: the test images.

    Without any they are training images, drawn by chance and the same at every stage unless they are accused.
    """
    if test is not None:
        return test
    order = torch.randperm(len(train.labels), generator=random_stream(seed, "evaluate")).numpy()
    kept = order[judged.verdict[order] == CLEAN] if judged else order
    return dataclasses.replace(train, images=train.images[kept[:count]], labels=train.labels[kept[:count]])


def evaluate_step(
    stage: str,
    model: Path,
    dataset: Path,
    ground_truth: Path | None,
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
        ground_truth: None where nobody knows it; the test images may then be missing too.
        architecture: see ``load_model``.
        detection: what was detected at this stage; the infected model is judged by none.
        previous_report: the report that this one extends; the infected stage begins a new one.
        tracking: where MLflow is; None keeps the report as the only record. If MLflow is lost, the run goes on and the
            report's folder says what was not recorded.
    """
    prepare_process()
    where = resolve_device(device)
    check_attacks(autoattack=stage == PURIFIED and config.autoattack_images > 0)
    given = (model, dataset, ground_truth, detection, previous_report)
    with timed_folder(report, "evaluate", "report.json", *filter(None, given)) as folder:
        network, card = load_model(model, where, architecture=architecture)
        train, test = open_split(dataset / "train"), None
        if ground_truth or (dataset / "test").exists():
            test = matching(open_split(dataset / "test"), card.classes, card.input_shape, model)
        judged, made = load_detection(detection, train.labels) if detection else (None, {})
        most = max(config.pgd_images, config.autoattack_images, config.masking_images)
        x, y = first(attacked_images(train, test, judged, most, seed=seed), most, where)
        some = slice(config.pgd_images)
        parameters = {"train" if stage == INFECTED else "purify": card.training, "evaluate": as_parameters(config)}
        about: dict[str, Any] = {"source": train.digest, "train_size": len(train.labels)}
        if ground_truth:
            truth, about = load_truth(ground_truth)
            assert test is not None
            check_about(truth, train, test, ground_truth)
            result = accuracies(network, test, truth, where)
            result["drift"] = drift(network, test, truth, config.drift_images, where, seed=seed)
        else:
            result = accuracies_by_labels(network, train, test, where)
        result["robust_accuracy"] = [robust_accuracy(network, x[some], y[some], config, seed=seed)]
        if judged:
            parameters |= made["settings"]
            result["detection"] = detection_metrics(judged, truth) if ground_truth else accusations(judged)
            if ground_truth:
                (folder / CLASSIFICATION).write_text(json.dumps(classification(judged, truth)) + "\n")
        content = load_report(previous_report) if previous_report else _begin(about, train, seed, git_commit, data_uri)
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
    return scalars_of(result)


def _begin(about: dict[str, Any], train: LabelledImages, seed: int, git_commit: str, data_uri: str) -> dict[str, Any]:
    """Return a report that has no stage yet; ``about``: what a ground truth says of itself, or of the data at least."""
    report: dict[str, Any] = {
        "format": FORMAT,
        "schema": 2,
        "command": "pipeline",
        "seed": seed,
        "git_commit": git_commit,
        "dataset": {
            "name": train.name,
            "digest": about["source"],
            "uri": without_userinfo(data_uri),
            "train_images": about["train_size"],
        },
        "rounds": [],
        "seconds": 0.0,
    }
    if "attack" in about:
        planted = {key: about[key] for key in ("mapping", "poison_rate", "target_label")}
        report["attack"] = {"name": about["attack"], "settings": about.get("attack_settings", {}), **planted}
    return report


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
