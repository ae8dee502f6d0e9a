"""Adversarial fine-tuning throughput, PGD included: pud against plain float32 torch with foolbox's LinfPGD.

Both fine-tune the same network on the same images with the same number of PGD steps on every image, one after the other
in one run, each in a process of its own: the plain loop has torch's defaults, as one would write it with foolbox.

    python -m experiments.throughput
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable

import numpy as np
import torch

from pud.models.classifier import ResNet, make_model

BATCH = 128
EPSILON, STEP_SIZE = 8 / 255, 0.4
WARM_UP = 3
TURNS = 3


def images_and_labels(batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random uint8 images and labels: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    n = batches * BATCH
    return rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8), rng.integers(0, 10, n)


def network() -> ResNet:
    """Return the model of the demo."""
    return make_model("resnet8", (1, 28, 28), 10, [0.286], [0.353])


def with_pud(batches: int, steps: int) -> float:
    """Return images a second of one round of pud's purification, every image attacked."""
    from pud.base.device import prepare_process
    from pud.defences.contract import State
    from pud.defences.pud import PurifyConfig, purify

    prepare_process()
    config = PurifyConfig(
        epochs=(1,), steps=steps, step_size=STEP_SIZE, epsilon=(EPSILON,), adversarial_fraction=(1.0,)
    )

    def run(n: int) -> float:
        images, labels = images_and_labels(n)
        state = State.initial(network(), len(labels))
        state.clean[:] = True
        started = time.perf_counter()
        purify(state, images, labels, config, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
        return len(labels) / (time.perf_counter() - started)

    run(WARM_UP)
    return run(batches)


def with_foolbox(batches: int, steps: int) -> float:
    """Return images a second of a plain loop: foolbox's LinfPGD, mean teacher, the same losses and optimiser."""
    import copy

    import foolbox
    from torch.nn import functional

    images, labels = images_and_labels(batches + WARM_UP)
    x_all, y_all = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    student = network().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    teacher = copy.deepcopy(student).eval()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    attack = foolbox.attacks.LinfPGD(steps=steps, rel_stepsize=STEP_SIZE, random_start=True)
    started = 0.0
    for index in range(batches + WARM_UP):
        if index == WARM_UP:
            started = time.perf_counter()
        rows = slice(index * BATCH, (index + 1) * BATCH)
        student.eval()
        target = foolbox.PyTorchModel(student, bounds=(0, 1), device="cpu")
        x_adv = attack(target, x_all[rows], y_all[rows], epsilons=EPSILON)[1]
        student.train()
        output = student(x_adv)
        with torch.no_grad():
            agreed = teacher(x_adv).softmax(1)
        loss = functional.cross_entropy(output, y_all[rows])
        loss = loss + 0.05 * (output.softmax(1) - agreed).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.lerp_(new, 0.01)
    return batches * BATCH / (time.perf_counter() - started)


def alone(function: Callable[[int, int], float], batches: int, steps: int) -> float:
    """Run a measurement in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (batches, steps))


def main() -> None:
    """Measure the two in turn and print the medians and their ratio as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=12, help="batches of 128 images in each turn")
    parser.add_argument("--steps", type=int, default=5, help="PGD steps")
    arguments = parser.parse_args()
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(alone(with_pud, arguments.batches, arguments.steps))
        theirs.append(alone(with_foolbox, arguments.batches, arguments.steps))
    ratio = float(np.median(ours) / np.median(theirs))
    print(
        json.dumps(
            {
                "adversarial_fine_tuning": {
                    "pgd_steps": arguments.steps,
                    "images": arguments.batches * BATCH,
                    "turns": TURNS,
                    "pud_images_per_second": round(float(np.median(ours)), 1),
                    "foolbox_images_per_second": round(float(np.median(theirs)), 1),
                    "ratio": round(ratio, 2),
                }
            }
        )
    )


if __name__ == "__main__":
    main()
