"""The pictures of a run: the metrics by round, the drift of adversarial examples, the suspicion of the images."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from pud.detectors.contract import CLEAN, POISONED, UNSURE, Detection
from pud.reporting.report import rows_of, stages_of


def plot_rounds(report: dict[str, Any], path: Path) -> None:
    """Draw accuracy, attack success, recovery and robustness against the stages of a report."""
    rows = rows_of(report)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key in rows[0][1]:
        axes.plot(
            [name for name, _ in rows], [100 * row[key] for _, row in rows], marker="o", label=key.replace("_", " ")
        )
    axes.set(ylabel="%", ylim=(-2, 102))
    axes.legend()
    figure.savefig(path)
    plt.close(figure)


def plot_drift(report: dict[str, Any], path: Path) -> None:
    """Draw where each stage's adversarial examples go and what they look like to the model (paper, section 3.1)."""
    stages = stages_of(report)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key in ("share_to_target", "similarity_to_triggered", "similarity_to_clean"):
        axes.plot(
            [name for name, _ in stages],
            [row["drift"][key] for _, row in stages],
            marker="o",
            label=key.replace("_", " "),
        )
    axes.set(ylabel="of untargeted adversarial examples", ylim=(-0.05, 1.05))
    axes.legend()
    figure.savefig(path)
    plt.close(figure)


def plot_suspicion(detection: Detection, path: Path) -> None:
    """Draw the histogram of suspicion, by verdict; the threshold that detection chose lies at 0."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    groups = [detection.suspicion[detection.verdict == verdict] for verdict in (CLEAN, UNSURE, POISONED)]
    axes.hist(groups, bins=60, stacked=True, label=[CLEAN, UNSURE, POISONED], log=True)
    axes.axvline(0, color="black", linestyle="--")
    axes.set(xlabel="suspicion", ylabel="training images")
    axes.legend()
    figure.savefig(path)
    plt.close(figure)
