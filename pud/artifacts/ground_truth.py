"""The ground truth on disk. Only poison writes it and only evaluate reads it; no other step imports this module."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pud.attacks.ground_truth import GroundTruth
from pud.base.errors import InputError
from pud.base.files import read_array, read_json, write_json
from pud.data.images import LabelledImages

FORMAT, OLDER = "pud-ground-truth/2", "pud-ground-truth/1"  # of 1 the attack is called trigger


def save_truth(folder: Path, truth: GroundTruth, about: dict[str, Any]) -> None:
    """Write the ground truth: one .npy a field and ``ground_truth.json`` (how it was poisoned)."""
    for field in dataclasses.fields(truth):
        np.save(folder / f"{field.name}.npy", getattr(truth, field.name), allow_pickle=False)
    write_json(folder / "ground_truth.json", {"format": FORMAT, **about})


def load_truth(folder: Path) -> tuple[GroundTruth, dict[str, Any]]:
    """Read the ground truth and how the data set was poisoned."""
    folder = Path(folder)
    about = read_json(folder / "ground_truth.json", FORMAT, OLDER, source=str, train_size=int)
    about.setdefault("attack", about.pop("trigger", ""))
    truth = GroundTruth(
        poisoned=read_array(folder / "poisoned.npy", np.bool_, 1),
        cover=read_array(folder / "cover.npy", np.bool_, 1),
        true_labels=read_array(folder / "true_labels.npy", np.int64, 1),
        triggered_images=read_array(folder / "triggered_images.npy", np.uint8, 4, mmap=True),
        triggered_source=read_array(folder / "triggered_source.npy", np.int64, 1),
        triggered_true_labels=read_array(folder / "triggered_true_labels.npy", np.int64, 1),
        triggered_target_labels=read_array(folder / "triggered_target_labels.npy", np.int64, 1),
    )
    return truth, about


def check_about(truth: GroundTruth, train: LabelledImages, test: LabelledImages, folder: Path) -> None:
    """Check that a ground truth is about this data set, as far as the data can tell.

    Raises:
        InputError: it is about another one, or corrupt.
    """
    source, facts = truth.triggered_source, (truth.triggered_true_labels, truth.triggered_target_labels)
    holds = (
        len(truth.poisoned) == len(truth.cover) == len(truth.true_labels) == len(train.labels)
        and len(truth.triggered_images) == len(source) == len(facts[0]) == len(facts[1]) > 0
        and truth.triggered_images.shape[1:] == test.images.shape[1:]
        and 0 <= source.min() <= source.max() < len(test.labels)
        and np.array_equal(facts[0], test.labels[source])
        and np.array_equal(truth.true_labels[~truth.poisoned], train.labels[~truth.poisoned])
    )
    if not holds:
        raise InputError(
            f"{folder} is the ground truth of another data set: give the one that was written with this one"
        )
