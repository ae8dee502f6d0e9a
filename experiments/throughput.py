"""Training speed in images a second, and its ratios to what a user would pick instead and to what the device gives.

Purification (PGD on every image, teacher, unlearning, stamps) against a plain torch loop with foolbox's LinfPGD, on the
same network, images, batch and number of PGD steps; on a GPU also against one captured step of the bare work, and plain
training against its own. Each measurement runs in a process of its own, in turn with the others.

    python -m experiments.throughput [--device auto] [--architecture resnet8] [--batch 128]
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pud.base.device import autocast, prepare_process, resolve_device
from pud.models.make import make_model

EPSILON, STEP_SIZE, LEARNING_RATE = 8 / 255, 0.4, 0.05
WARM_UP = 6
TURNS = 3


@dataclass(frozen=True)
class Case:
    """What is measured. bfloat16: whether it may be used, where the hardware computes in it."""

    device: str
    architecture: str
    shape: tuple[int, ...]
    batch: int
    batches: int
    steps: int
    bfloat16: bool

    def network(self) -> nn.Module:
        channels = self.shape[0]
        model = make_model(self.architecture, self.shape, 10, [0.4] * channels, [0.3] * channels)
        return model.to(resolve_device(self.device))

    def data(self, batches: int) -> tuple[np.ndarray, np.ndarray]:
        """Return random uint8 images and labels: speed does not depend on what they show."""
        rng, n = np.random.default_rng(0), batches * self.batch
        return rng.integers(0, 256, (n, *self.shape), dtype=np.uint8), rng.integers(0, 10, n)

    def on_device(self) -> tuple[Tensor, Tensor]:
        """Return one batch in [0, 1] and its labels on the device."""
        images, labels = self.data(1)
        where = resolve_device(self.device)
        return torch.from_numpy(images).float().div(255).to(where), torch.from_numpy(labels).to(where)


def prepared(case: Case) -> torch.device:
    """Prepare the process; without bfloat16, for all that asks whether the hardware has it."""
    prepare_process()
    if not case.bfloat16:
        torch.cpu._is_amx_tile_supported = torch.cpu._is_avx512_bf16_supported = lambda: False  # type: ignore[assignment]
        torch.cuda.is_bf16_supported = lambda *_, **__: False  # type: ignore[assignment]
    return resolve_device(case.device)


def rate(run: Callable[[int], None], case: Case) -> float:
    """Return images a second of ``run``, which takes a number of batches."""
    run(WARM_UP)
    started = time.perf_counter()
    run(case.batches)
    return case.batches * case.batch / (time.perf_counter() - started)


def purification(case: Case) -> float:
    """Measure a round of purification, every image attacked, a tenth of them accused and unlearned."""
    from pud.defences.contract import State
    from pud.defences.pud import PurifyConfig, purify

    device = prepared(case)
    settings = {"epsilon": (EPSILON,), "step_size": STEP_SIZE, "adversarial_fraction": (1.0,)}
    config = PurifyConfig(epochs=(1,), steps=case.steps, batch_size=case.batch, crop=0.0, flip=False, **settings)

    def run(batches: int) -> None:
        images, labels = case.data(batches + batches // 8 + 1)
        state = State.initial(case.network(), len(labels))
        state.clean[: batches * case.batch] = True
        state.accused = ~state.clean
        generator = torch.Generator().manual_seed(0)
        purify(state, images, labels, config, generator=generator, device=device, unlearned=state.accused)
        synchronise(device)

    return rate(run, case)


def training(case: Case) -> float:
    """Measure plain training."""
    from pud.models.training import TrainConfig, train

    device = prepared(case)
    config = TrainConfig(epochs=1, batch_size=case.batch, crop=0.0, flip=False)

    def run(batches: int) -> None:
        generator = torch.Generator().manual_seed(0)
        train(case.network(), *case.data(batches), config, generator=generator, device=device)
        synchronise(device)

    return rate(run, case)


def with_foolbox(case: Case) -> float:
    """Measure a plain loop: foolbox's LinfPGD, then a step with a mean teacher, the same losses and optimiser."""
    import copy

    import foolbox

    where = resolve_device(case.device)
    student = case.network().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    teacher = copy.deepcopy(student).eval()
    optimiser = torch.optim.SGD(student.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    attack = foolbox.attacks.LinfPGD(steps=case.steps, rel_stepsize=STEP_SIZE, random_start=True)
    x, y = case.on_device()

    def run(batches: int) -> None:
        for _ in range(batches):
            with torch.autocast(where.type, torch.bfloat16, enabled=case.bfloat16 and where.type == "cuda"):
                target = foolbox.PyTorchModel(student.eval(), bounds=(0, 1), device=where)
                x_adv = attack(target, x, y, epsilons=EPSILON)[1]
                output = student.train()(x_adv).float()
                with torch.no_grad():
                    agreed = teacher(x_adv).float().softmax(1)
            loss = functional.cross_entropy(output, y)
            loss = loss + 0.05 * (output.softmax(1) - agreed).square().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                    old.lerp_(new, 0.01)
        synchronise(where)

    return rate(run, case)


def limit(case: Case, *, attacked: bool) -> float:
    """Measure what the device gives: the bare step (PGD on a folded copy, one SGD step) as one CUDA graph."""
    from pud.adversarial.pgd import PGDConfig, ascend
    from pud.base.captured import CapturedStep
    from pud.models.folded import fold_batchnorm
    from pud.models.training import sgd

    device = prepared(case)
    model = case.network().train()
    folded = fold_batchnorm(model)
    optimiser = sgd(model, LEARNING_RATE, 0.9, 5e-4, device)
    config = PGDConfig(EPSILON, case.steps, STEP_SIZE)
    images, labels = case.on_device()
    images = images.contiguous(memory_format=torch.channels_last)

    def step(x: Tensor, y: Tensor) -> None:
        with autocast(device):
            output = model(ascend(folded, x, x, y, config) if attacked else x)
        optimiser.zero_grad()
        functional.cross_entropy(output.float(), y).backward()
        optimiser.step()

    captured = CapturedStep(step, device)

    def run(batches: int) -> None:
        for _ in range(batches):
            captured(images, labels)
        synchronise(device)

    return rate(run, case)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def rows(gpu: bool) -> Iterator[tuple[str, Callable[[Case], float]]]:
    """Yield what is measured on a device, by name."""
    yield "pud_purification", purification
    yield "foolbox", with_foolbox
    yield "pud_training", training
    if gpu:
        yield "limit_purification", partial(limit, attacked=True)
        yield "limit_training", partial(limit, attacked=False)


def alone(function: Callable[[Case], float], case: Case) -> float:
    """Run a measurement in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (case,))


def main() -> None:
    """Measure all in turn and print medians and ratios as one JSON line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--architecture", default="resnet8")
    parser.add_argument("--shape", type=int, nargs=3, default=[1, 28, 28], help="channels, height and width")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=12, help="in each turn")
    parser.add_argument("--steps", type=int, default=5, help="of PGD")
    given = parser.parse_args()
    gpu = resolve_device(given.device).type == "cuda"
    for bfloat16 in (True, False):
        case = Case(
            given.device, given.architecture, tuple(given.shape), given.batch, given.batches, given.steps, bfloat16
        )
        found: dict[str, list[float]] = {}
        for _ in range(TURNS):
            for name, function in rows(gpu):
                found.setdefault(name, []).append(alone(function, case))
        medians = {name: round(float(np.median(values)), 1) for name, values in found.items()}
        ratios = {"pud_purification / foolbox": medians["pud_purification"] / medians["foolbox"]}
        for kind in ("purification", "training") if gpu else ():
            ratios[f"pud_{kind} / limit"] = medians[f"pud_{kind}"] / medians[f"limit_{kind}"]
        print(
            json.dumps(
                {
                    "throughput": vars(given) | {"bfloat16": bfloat16, "turns": TURNS},
                    "images_per_second": medians,
                    "ratios": {name: round(value, 2) for name, value in ratios.items()},
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
