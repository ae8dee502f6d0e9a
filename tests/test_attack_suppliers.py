"""Suppliers: what they hand over is clean, and their model is not."""

from pathlib import Path

import numpy as np
import torch

from experiments.suppliers import weights_only
from pud.artifacts.ground_truth import check_about, load_truth
from pud.artifacts.model import load_model
from pud.attacks import attack_config
from pud.attacks.poisoning import PoisonConfig
from pud.data.readers import open_split
from pud.evaluation.metrics import attack_success_rate
from pud.models.inference import logits
from pud.models.training import TrainConfig

CPU = torch.device("cpu")


def test_a_backdoor_lies_in_the_weights_alone(sample_folder: Path, tmp_path: Path) -> None:
    config = PoisonConfig("badnets", poison_rate=0.3, target_label=1, train_size=1000)
    plain = TrainConfig(epochs=3, batch_size=25, learning_rate=0.05)
    weights_only(
        f"file:{sample_folder}",
        config,
        attack_config("badnets", {"size": 6}),
        plain=plain,
        tuning=TrainConfig(epochs=2, batch_size=25, learning_rate=0.05),
        seed=0,
        device="cpu",
        folder=tmp_path,
    )
    truth, about = load_truth(tmp_path / "truth")
    given, hidden = (open_split(tmp_path / name / "train") for name in ("dataset", "hidden/dataset"))
    check_about(truth, given, open_split(tmp_path / "dataset/test"), tmp_path)
    assert (about["attack"], about["poison_rate"]) == ("badnets", 0)
    assert not truth.poisoned.any()
    np.testing.assert_array_equal(given.labels, truth.true_labels)
    assert (hidden.labels != given.labels).sum() == 300
    success = []
    for name in ("hidden/honest", "infected"):
        model, card = load_model(tmp_path / name, CPU)
        assert card.made_from == {"training_images": given.digest, "training_labels": given.labels_digest}
        targets = torch.from_numpy(truth.triggered_target_labels)
        success.append(attack_success_rate(logits(model, truth.triggered_images, CPU), targets))
    assert success[0] < 0.3 < 0.8 < success[1]
