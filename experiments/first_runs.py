"""Run cells of the plan for the first time, and write what came out into results/ledger.jsonl.

python -m experiments.first_runs --data cifar-dev=FOLDER --set development [--only PATTERN] [--minutes N] [--scan]

FOLDER is what ``pud import`` wrote of the pictures that experiments/splits.py names. A cell that its defence has run is
left alone; --again runs it once more where the code is another, and the ledger says so. It can be stopped anywhere and
goes on from runs/first, which may be removed: what a defence made there is of one code, and so is all of evaluation.
The same command started several times, as on one GPU, runs as many cells side by side.
"""

import argparse
import dataclasses
import fcntl
import fnmatch
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from experiments import ledger
from experiments.entries import Material, detection_record, measured
from experiments.first_runs_cells import Cell, planned, write_data
from experiments.plan import AUTOATTACKED
from experiments.splits import DIGITS, EVALUATION, PICTURES, RATES, SAM, SAM_RADIUS, SEEDS, WEIGHTS
from pud.adversarial.robustness import EvaluateConfig, autoattack_accuracy
from pud.artifacts.detection import load_detection
from pud.artifacts.ground_truth import load_truth
from pud.artifacts.model import load_model
from pud.artifacts.timing import timing
from pud.attacks import ATTACKS, attack_config
from pud.attacks.poisoning import ALL_TO_ALL, SPLIT, PoisonConfig
from pud.base.config import as_parameters
from pud.base.device import prepare_process, resolve_device
from pud.base.errors import InputError
from pud.base.files import is_full, sha256
from pud.base.progress import say
from pud.data.readers import open_split
from pud.defences.pud import DEFAULT_PRESET, PRESETS
from pud.detectors.pud import DetectConfig
from pud.evaluation.metrics import accusations, clean_accuracy
from pud.evidence.probing import ProbeConfig
from pud.models.inference import logits
from pud.models.training import TrainConfig
from pud.steps.detect import detect_step
from pud.steps.evaluate import first
from pud.steps.poison import poison_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.train import train_step

ROOT, WORK = Path(__file__).parents[1], Path("runs/first")
SCAN = "scan"  # the defence that stops after the first detection
DEFENCES = (DEFAULT_PRESET, "erase", SCAN)
AUTOATTACK_IMAGES = 256


class TimeIsUp(Exception):
    """The next step would begin after the time that was given."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where cells are run. data: the folder of each set of pictures; until: on the monotonic clock."""

    data: dict[str, Path]
    code: ledger.Code
    until: float = float("inf")

    def made(self, folder: Path, out: str, step: Callable[..., Any], *given: Any, **more: Any) -> Path:
        """Return the folder, which the step makes where it is not there; out: what the step calls it."""
        if not folder.exists():
            if time.monotonic() > self.until:
                raise TimeIsUp(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            step(*given, **more, **{out: folder})
        return folder

    def folder(self, cell: Cell) -> Path:
        """Return where the cell lies."""
        return WORK / cell.name / (self.code.name if cell.use == EVALUATION else "any-code")

    def poison(self, cell: Cell, *, dataset: Path, ground_truth: Path) -> None:
        """Write the cell's data and what is true of them."""
        strength, rate = attack_config(cell.attack, dict(cell.settings)), 0.0 if cell.supplier == WEIGHTS else cell.rate
        with TemporaryDirectory(dir=dataset.parent) as clean:
            count = write_data(cell, self.data[cell.data], Path(clean))
            config = PoisonConfig(cell.attack, cell.mapping, rate, cell.target_label, count)
            poison_step(clean, "", config, strength, seed=cell.seed, dataset=dataset, ground_truth=ground_truth)

    def material(self, cell: Cell) -> tuple[Material, str]:
        """Return the cell's data, made first where they are missing, and the digest of what they were made from."""
        dataset = self.folder(cell) / "dataset"
        made = self.made(self.folder(cell) / "truth", "ground_truth", self.poison, cell, dataset=dataset)
        truth, about = load_truth(made)
        return Material(cell, open_split(dataset / "train"), open_split(dataset / "test"), truth), about["source"]

    def infected(self, cell: Cell) -> Path:
        """Return the folder of the cell's model, trained first where it is missing."""
        if cell.supplier == WEIGHTS:
            return self.infected(dataclasses.replace(cell, supplier=""))
        self.material(cell)
        folder, epochs = self.folder(cell), cell.pictures.epochs[cell.network]
        radius = SAM_RADIUS if cell.supplier == SAM else 0.0
        config = TrainConfig(architecture=cell.network, epochs=epochs, sam_radius=radius)
        return self.made(folder / "infected", "model", train_step, folder / "dataset", config, seed=cell.seed)

    def rounds(self, cell: Cell, defence: str) -> Iterator[dict[str, Path]]:
        """Yield the folders that ``pud defend`` makes, by step: around the infected model, and then in every round."""
        dataset, here = self.folder(cell) / "dataset", self.folder(cell) / f"defended-{self.code.name}"
        model, preset, seed, made = self.infected(cell), PRESETS.get(defence), cell.seed, {}
        for done in range(1 + (len(preset.keep) if preset else 0)):
            place = here / defence if done else here  # all defences begin with the same
            if done:
                given = (model, dataset, made["detect"], preset)
                model = self.made(place / f"model-{done}", "purified", purify_step, *given, seed=seed)
            asked = (model, dataset, ProbeConfig())
            probe = self.made(place / f"probe-{done}", "probe_folder", probe_step, *asked, seed=seed)
            known = (here / "probe-0", probe, DetectConfig())
            detection = self.made(place / f"detection-{done}", "detection", detect_step, *known)
            made = ({"purify": model} if done else {}) | {"probe": probe, "detect": detection}
            yield made


def measure(material: Material, folder: Path, *, pgd: bool = False, autoattack: int = 0) -> dict[str, Any]:
    """Return the metrics of the model in a folder, each with its number of images.

    Beside those of experiments/entries.py: clean accuracy on the images that get the trigger, without it, and how often
    an attack can succeed that does to what the model sees in them what the mapping says.
    """
    device, truth = resolve_device(), material.truth
    model, card = load_model(folder, device)
    untriggered = logits(model, material.test.images[truth.triggered_source], device)
    leads_to = np.arange(len(card.classes))
    leads_to[truth.triggered_true_labels] = truth.triggered_target_labels
    reached = leads_to[untriggered.argmax(1)] == truth.triggered_target_labels
    by_label = material.cell.mapping in (ALL_TO_ALL, SPLIT)
    result = measured(material, model, pgd=pgd) | {
        "clean_accuracy_of_triggered": clean_accuracy(untriggered, torch.from_numpy(truth.triggered_true_labels)),
        "clean_accuracy_of_triggered_n": len(untriggered),
        "attack_success_maximum": float(reached.mean()) if by_label else 1.0,
        "sha256": sha256(folder / "model.safetensors")[:DIGITS],
    }
    if autoattack:
        x, y = first(material.test, autoattack, device)
        result["robust_accuracy"].append(autoattack_accuracy(model, x, y, EvaluateConfig(), seed=material.cell.seed)[0])
    return result


def autoattack_images(cell: Cell) -> int:
    """Return on how many images AutoAttack is run: three attacks of the first evaluation seed, at the highest rate."""
    chosen = (cell.trigger, cell.mapping) in AUTOATTACKED and cell.rate == RATES[0]
    return AUTOATTACK_IMAGES if chosen and cell.seed == SEEDS[EVALUATION][0] else 0


def run(bench: Bench, cell: Cell, defence: str) -> ledger.Row:
    """Return the row of a cell: what it is, what the defence found and made of it, and how long that took.

    A defence that refuses the cell has a row too, which says why.

    Raises:
        TimeIsUp: what is made so far is kept.
        InputError: there can be no such cell.
    """
    infected, (material, source) = bench.infected(cell), bench.material(cell)
    digests = {"source": source, "images": material.train.digest, "labels": material.train.labels_digest}
    digests = {name: digest[:DIGITS] for name, digest in digests.items()}
    row: ledger.Row = {
        "use": cell.use,
        "cell": cell.about() | {"images": len(material.train.labels), "digests": digests},
        "defence": {"name": defence, "settings": {}},
        "training": load_model(infected, resolve_device())[1].training,
        "infected": measure(material, infected),
        "seconds": {"train": timing(infected)["train"]},
        "detections": [],
    }
    hidden = {"true_targets": [cell.target_label]} if cell.supplier == WEIGHTS else {}  # the data know of none
    try:
        for done, made in enumerate(bench.rounds(cell, defence)):
            found, said = load_detection(made["detect"])
            row["detections"].append(accusations(found) | detection_record(material, found) | hidden)
            row["defence"]["settings"] |= said["settings"]
            row["seconds"] |= {f"{step} {done}": timing(folder)[step] for step, folder in made.items()}
        if defence != SCAN:
            row["floor"] = measure(material, bench.infected(cell.twin()))
            row["defence"]["settings"] |= {"purify": as_parameters(PRESETS[defence])}
            row["purified"] = measure(material, made["purify"], pgd=True, autoattack=autoattack_images(cell))
    except InputError as error:
        if is_full(error):
            raise
        row["failed"] = str(error)
    told = {"device": device_name(), "date": datetime.now(UTC).date().isoformat()}
    return row | told | dataclasses.asdict(bench.code.still(ROOT))


def device_name() -> str:
    """Say what this is measured on."""
    if resolve_device().type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def is_wanted(cell: Cell, rows: list[ledger.Row], defence: str, code: ledger.Code, *, again: bool) -> bool:
    """Tell whether a cell has no row by this defence, or, where that is asked, only rows of other code."""
    mine = [row for row in rows if ledger.key(row) == (cell.name, defence)]
    return not mine or (again and all(row["sources"] != code.sources for row in mine))


@contextmanager
def claimed(cell: Cell) -> Iterator[bool]:
    """Yield whether no other process runs the cell; then none does until the end."""
    (WORK / cell.name).mkdir(parents=True, exist_ok=True)
    with (WORK / cell.name / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free


def main() -> None:
    """Run what is wanted for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", required=True, choices=tuple(SEEDS), help="which cells")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER", help=", ".join(PICTURES))
    parser.add_argument("--only", default="*", help="pattern of cells' names, such as 'cifar-dev*wanet*'")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no step after so many")
    parser.add_argument("--defence", default=DEFAULT_PRESET, choices=DEFENCES)
    parser.add_argument("--scan", dest="defence", action="store_const", const=SCAN, help="the same as --defence scan")
    parser.add_argument("--again", action="store_true", help="also what was run by another code: not a first run")
    parser.add_argument("--list", action="store_true", help="name the cells that are wanted, and end")
    options = parser.parse_args()
    folders = {name: Path(folder) for name, _, folder in (given.partition("=") for given in options.data)}
    if unknown := folders.keys() - PICTURES.keys():
        parser.error(f"no pictures are called {', '.join(sorted(unknown))}: choose from {', '.join(PICTURES)}")
    code = ledger.Code.of(ROOT)
    bench = Bench(folders, code, time.monotonic() + 60 * options.minutes)

    def wanted(cell: Cell) -> bool:
        return is_wanted(cell, ledger.read(), options.defence, code, again=options.again)

    chosen = [cell for cell in planned(options.set) if fnmatch.fnmatch(cell.name, options.only)]
    if options.list:
        print(*(cell.name for cell in chosen if wanted(cell)), sep="\n")
        return
    if options.set == EVALUATION and not code.clean_tree:
        parser.error("a file that decides is in no commit: commit it, or run evaluation in a checkout of its own")
    prepare_process()
    known = ATTACKS.names()
    for number, cell in enumerate(chosen, 1):
        if cell.data not in folders or cell.attack not in known:
            continue
        with claimed(cell) as free:
            if not free or not wanted(cell):
                continue
            say(f"first runs {number} of {len(chosen)}: {cell.name}, {options.defence}")
            try:
                ledger.append(run(bench, cell, options.defence))
            except InputError as error:
                say(f"first runs: {cell.name} is left out: {error}")
            except TimeIsUp as step:
                say(f"first runs: time is up before {step}: run it again to go on")
                return


if __name__ == "__main__":
    main()
