"""The grid of experiments behind docs/results.md: every cell an infected model, every entry one thing done to it.

python -m experiments.grid [--minutes N] [--only PATTERN]

What is measured goes to ``results/CELL.json`` at once and is not measured again until the defence changes (``DEFENCE``
in experiments/plan.py) or the infected model is another: the grid can be stopped anywhere and goes on from what is
committed. Models and data lie in ``runs/bench`` and are made again where they are missing, the infected model perhaps
otherwise on another machine: a cell's entries are of one.
"""

import argparse
import copy
import dataclasses
import fnmatch
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.ablations import DETECTOR_ABLATIONS
from experiments.plan import (
    AUTOATTACKED,
    BOUNDS,
    COSTED,
    DEFAULT,
    DEFENCE,
    FILTER,
    FORMAT,
    HELD_OUT_SEED,
    ONE,
    RIVALS,
    SEEDS,
    WORK,
    WORKED,
    Cell,
    at_rate,
    highest_rates,
    innocent,
    other_rates,
)
from pud.adversarial.robustness import EvaluateConfig, autoattack_accuracy, masking_checks, robust_accuracy
from pud.artifacts.detection import load_detection
from pud.artifacts.evidence import load_evidence
from pud.artifacts.ground_truth import load_truth
from pud.artifacts.model import load_model, save_model
from pud.artifacts.timing import timed_folder
from pud.attacks import ATTACKS
from pud.attacks.ground_truth import GroundTruth
from pud.attacks.poisoning import PoisonConfig
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.files import finished_folder, read_json, write_json
from pud.base.progress import say
from pud.data.images import LabelledImages
from pud.data.readers import open_split
from pud.data.readers.npy import write_split
from pud.defences import defence_settings
from pud.defences.contract import Selection, State
from pud.defences.pud import PRESETS, PurifyConfig, purify
from pud.detectors import DEFAULT as OURS
from pud.detectors import DETECTORS, detector_settings
from pud.detectors.contract import CLEAN, POISONED, Detection
from pud.detectors.pud import DetectConfig
from pud.evaluation.metrics import attack_success_rate, detection_metrics, verdict_metrics
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence
from pud.evidence.probing import ProbeConfig
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train
from pud.platform.local_run import git_commit
from pud.steps.detect import detect_step
from pud.steps.evaluate import accuracies, drift, first
from pud.steps.poison import poison_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.train import train_step

RESULTS, DATA = Path("results"), "file:data"
ABLATED = [("badnets", ONE), ("blend", ONE)]
COST = "cost"
RIVAL_DETECTORS = [name for name in DETECTORS.names() if name != OURS]
CLEAN_SHARE = 0.05  # of the training size, what rivals ask for
BESIDE_AUTOATTACK = {"white_box_accuracy", "pgd_accuracy"}  # on the same images
PGD_IMAGES, AUTOATTACK_IMAGES, DRIFT_IMAGES = 1_000, 256, 500
CEILING = dataclasses.replace(
    PRESETS["robust"],
    keep=(1.0,),
    epochs=(6,),
    learning_rate=(0.15,),
    adversarial_fraction=(1.0,),
    epsilon=(EvaluateConfig.epsilon,),
)
RELEARNING, RELEARNING_EPOCHS, RELEARNING_RATE = (5, 10, 50), 5, 0.01


def grid() -> Iterator[tuple[Cell, str]]:
    """Yield (cell, entry) in the order in which they are wanted."""
    cells, later_seeds = highest_rates(SEEDS[0]), (*SEEDS[1:], HELD_OUT_SEED)
    yield cells[0], "ceiling"
    for cell in [*cells[:3], innocent(0), *cells[3:]]:
        for entry in ("infected", DEFAULT):
            yield cell, entry
        if not cell.rate:
            yield cell, "erase"
    for entry in BOUNDS:
        for cell in [*cells, innocent(0)]:
            yield cell, entry
    for attack in AUTOATTACKED:
        for entry in ("autoattack robust", "autoattack ceiling", f"autoattack {FILTER}"):
            yield at_rate(*attack, 0, 0), entry
    for attack in COSTED:
        yield at_rate(*attack, 0, 0), COST
    for cell in [*map(innocent, (SEEDS[0], *later_seeds)), *cells]:
        yield cell, "erase"
    for cell in cells:
        for detector in [*RIVAL_DETECTORS, *DETECTOR_ABLATIONS]:
            yield cell, f"detector {detector}"
    for cell in cells:
        for name, (_, rates) in RIVALS.items():
            for rate in rates:
                yield cell, f"{name} lr={rate:g}"
    for attack in ABLATED:
        for name in (*ABLATIONS, UNPURIFIED, "paper", "aft"):
            yield at_rate(*attack, 0, 0), name
    for cell in cells:
        yield cell, FILTER
    for seed in later_seeds:
        for cell in [*highest_rates(seed), innocent(seed)]:
            for entry in ("infected", DEFAULT, *BOUNDS):
                yield cell, entry
    for cell in other_rates():
        for entry in ("infected", DEFAULT, *BOUNDS):
            yield cell, entry
    for cell in cells[1:]:
        for entry in ("paper", "aft"):
            yield cell, entry


# ---------------------------------------------------------------------------------------------------------- materials


@dataclasses.dataclass(frozen=True)
class Material:
    """What a cell is made of; truth is for measuring only."""

    cell: Cell
    train: LabelledImages
    test: LabelledImages
    truth: GroundTruth


def open_cell(cell: Cell) -> Material:
    """Return the cell's data, made first where they are missing."""
    folder = cell.folder
    if not (folder / "truth").exists():
        config = PoisonConfig(cell.attack, cell.mapping, cell.rate, cell.target_label)
        poison_step(DATA, "", config, seed=cell.seed, dataset=folder / "dataset", ground_truth=folder / "truth")
    truth, _ = load_truth(folder / "truth")
    return Material(cell, open_split(folder / "dataset/train"), open_split(folder / "dataset/test"), truth)


def infected(cell: Cell) -> Path:
    """Return the folder of the cell's infected model."""
    open_cell(cell)
    model = cell.folder / "infected"
    if not model.exists():
        train_step(cell.folder / "dataset", TrainConfig(), seed=cell.seed, model=model)
    return model


def infected_probe(cell: Cell, other: ProbeConfig | None = None) -> Path:
    """Return the folder of the infected model's probe."""
    probe = cell.defended / ("probe-other" if other else "probe-0")
    if not probe.exists():
        config = other or ProbeConfig()
        probe_step(infected(cell), cell.folder / "dataset", config, seed=cell.seed, probe_folder=probe)
    return probe


def adversarially_trained(folder: Path, cell: Cell, kept: np.ndarray) -> Path:
    """Return a folder with a model trained from scratch as ``robust`` trains, on images kept (bool, (n,)).

    For as many steps as six epochs of all images have, so that who filters is not trained less.
    """
    if not folder.exists():
        _, card = load_model(infected(cell), resolve_device())
        model, split = card.build(cell.seed).to(resolve_device()), open_cell(cell).train
        state = State.initial(model, len(split.labels))
        state.clean = kept
        stream = random_stream(cell.seed, "ceiling")
        config = dataclasses.replace(CEILING, epochs=(round(CEILING.epochs[0] * len(kept) / kept.sum()),))
        with timed_folder(folder, "train", "model.json") as partial:
            purify(state, np.array(split.images), split.labels, config, generator=stream, device=resolve_device())
            save_model(partial, state.student, card)
    return folder


def bound(cell: Cell, name: str) -> Path:
    """Return the folder of a bound: trained on the 20,000 images as they were before the attack, once a seed."""
    source = innocent(cell.seed)
    if name == "floor":
        return infected(source)
    material = open_cell(source)
    every = np.ones(len(material.train.labels), bool)
    return adversarially_trained(WORK / f"ceiling_s{cell.seed}", source, every)


def clean_extra(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Return clean images and labels, 5 % of the training size, that the training set does not hold."""
    whole = open_split(Path(DATA.partition(":")[2]) / "train")
    stream = random_stream(cell.seed, "poison")
    order = torch.randperm(len(whole.labels), generator=stream).numpy()
    size = PoisonConfig.train_size
    chosen = np.sort(order[size : size + round(CLEAN_SHARE * size)])
    return np.array(whole.images[chosen]), np.array(whole.labels[chosen])


# ------------------------------------------------------------------------------------------------------------ measures


def measured(material: Material, model: Classifier, *, pgd: bool = True) -> dict[str, Any]:
    """Return the metrics of a model, each with its number of images."""
    result = accuracies(model, material.test, material.truth, resolve_device())
    if pgd:
        x, y = first(material.test, PGD_IMAGES, resolve_device())
        result["robust_accuracy"] = [robust_accuracy(model, x, y, EvaluateConfig(), seed=material.cell.seed)]
    return result


def relearning(material: Material, model: Classifier) -> dict[str, float]:
    """Return the attack success after brief fine-tuning on 5, 10 or 50 poisoned images among clean ones."""
    device, cell = resolve_device(), material.cell
    poisoned = np.flatnonzero(material.truth.poisoned)
    result = {}
    for count in RELEARNING:
        stream = random_stream(cell.seed, "relearning", count)
        some = poisoned[torch.randperm(len(poisoned), generator=stream)[:count].numpy()]
        images, labels = clean_extra(cell)
        images = np.concatenate([images, material.train.images[some]])
        labels = np.concatenate([labels, material.train.labels[some]])
        again = copy.deepcopy(model).requires_grad_(True)
        config = TrainConfig(epochs=RELEARNING_EPOCHS, learning_rate=RELEARNING_RATE)
        train(again, images, labels, config, generator=stream, device=device)
        triggered = logits(again, material.truth.triggered_images, device)
        result[str(count)] = attack_success_rate(triggered, torch.from_numpy(material.truth.triggered_target_labels))
    return result


def detection_record(material: Material, judged: Detection) -> dict[str, Any]:
    """Return the rates of a detection and the true targets."""
    return detection_metrics(judged, material.truth) | {"true_targets": true_targets(material)}


def true_targets(material: Material) -> list[int]:
    """Return the classes to which the backdoor leads; none without poison."""
    return np.unique(material.train.labels[material.truth.poisoned]).tolist()


# ------------------------------------------------------------------------------------------------------------- entries


def defend(cell: Cell, preset: PurifyConfig, name: str, probe: ProbeConfig | None = None) -> dict[str, Any]:
    """Run the rounds of a preset, from where they were stopped, and return what came out, measured round by round."""
    material, device = open_cell(cell), resolve_device()
    folder, dataset = cell.defended / name, cell.folder / "dataset"
    model, first_probe = infected(cell), infected_probe(cell, probe)
    last, rounds, cost = first_probe, [], _seconds(first_probe)
    for index in range(len(preset.keep) + 1):
        detection = folder / f"detection-{index + 1}"
        if not detection.exists():
            detect_step(first_probe, last, DetectConfig(), detection=detection)
        now, _ = load_model(model, device)
        where = drift(now, material.test, material.truth, DRIFT_IMAGES, device, seed=cell.seed)
        found = {"detection": detection_record(material, load_detection(detection)[0]), "drift": where}
        seconds = round(cost + _seconds(detection), 1)
        rounds.append({**measured(material, now, pgd=False), **found, "seconds": seconds})
        if index == len(preset.keep):
            break
        purified, probed = (folder / f"{kind}-{index + 1}" for kind in ("model", "probe"))
        if not purified.exists():
            purify_step(model, dataset, detection, preset, seed=cell.seed, purified=purified)
        if not probed.exists():
            probe_step(purified, dataset, ProbeConfig(), seed=cell.seed, probe_folder=probed)
        model, last, cost = purified, probed, _seconds(purified) + _seconds(probed)
    result = measured(material, now)
    seconds = round(sum(one["seconds"] for one in rounds), 1)
    result |= {"seconds": seconds, "rounds": rounds, "detection": rounds[-1]["detection"]}
    if cell.rate:
        result["relearning"] = relearning(material, now)
    x, y = first(material.test, EvaluateConfig.masking_images, device)
    result["masking_checks"] = masking_checks(now, x, y, EvaluateConfig(), seed=cell.seed)
    return result


def repair(cell: Cell) -> dict[str, Any]:
    """Adversarial fine-tuning on a clean extra set, the paper's setting of model repair: no detection."""
    extra, purified = cell.folder / "extra", cell.defended / "aft"
    if not purified.exists():
        material = open_cell(cell)
        with finished_folder(extra, "train/dataset.json") as folder:
            about = {"classes": material.train.classes, "name": material.train.name, "source": "clean extra set"}
            write_split(folder / "train", *clean_extra(cell), **about)
        purify_step(infected(cell), extra, None, PRESETS["aft"], seed=cell.seed, purified=purified)
    return of_model(cell, purified)


def _seconds(folder: Path) -> float:
    """Return what the folder's own step took."""
    return float(list(json.loads((folder / "timing.json").read_text()).values())[-1])


def of_model(cell: Cell, folder: Path) -> dict[str, Any]:
    """Measure a model that no round made."""
    model, _ = load_model(folder, resolve_device())
    material = open_cell(cell)
    result = measured(material, model) | {"seconds": _seconds(folder)}
    if cell.rate and folder != infected(cell):
        result["relearning"] = relearning(material, model)
    return result


def autoattacked(cell: Cell, entry: str) -> dict[str, Any]:
    """Return the AutoAttack record of an entry's model."""
    if entry == "ceiling":
        folder = bound(cell, entry)
    else:
        purified = entry in PRESETS
        folder = cell.defended / f"{entry}/model-{len(PRESETS[entry].keep)}" if purified else cell.folder / entry
        if not folder.exists():
            measure(cell, entry)
    done = folder / "autoattack.json"  # one ceiling serves all cells of a seed
    if not done.exists():
        model, _ = load_model(folder, resolve_device())
        x, y = first(open_cell(cell).test, AUTOATTACK_IMAGES, resolve_device())
        found, white_box = autoattack_accuracy(model, x, y, EvaluateConfig(), seed=cell.seed)
        weaker = robust_accuracy(model, x, y, EvaluateConfig(), seed=cell.seed)
        found |= {"pgd_accuracy": weaker["value"], "white_box_accuracy": white_box}
        write_json(done, {"format": FORMAT, "record": found})
    return dict(read_json(done, FORMAT)["record"])


def cost(cell: Cell) -> dict[str, Any]:
    """Return the training seconds of the default preset's rounds and of the ceiling, one after the other in one run.

    The ceiling is trained before and after, since the speed of a machine drifts.
    """
    preset, source, model = PRESETS[DEFAULT], innocent(cell.seed), infected(cell)
    every, rounds = np.ones(len(open_cell(source).train.labels), bool), range(1, len(preset.keep) + 1)
    if not (cell.defended / DEFAULT / f"model-{rounds[-1]}").exists():
        defend(cell, preset, DEFAULT)
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        folder = Path(name)
        before = _seconds(adversarially_trained(folder / "before", source, every))
        for index in rounds:
            detection, purified = cell.defended / DEFAULT / f"detection-{index}", folder / f"model-{index}"
            purify_step(model, cell.folder / "dataset", detection, preset, seed=cell.seed, purified=purified)
            model = purified
        ours = sum(_seconds(folder / f"model-{index}") for index in rounds)
        after = _seconds(adversarially_trained(folder / "after", source, every))
    return {DEFAULT: round(ours, 1), "ceiling": round((before + after) / 2, 1), "ceilings": [before, after]}


def rival(cell: Cell, entry: str) -> dict[str, Any]:
    """Repair the infected model as a rival does, with the clean images that it asks for."""
    name, _, rate = entry.rpartition(" lr=")
    device, material = resolve_device(), open_cell(cell)
    model, _ = load_model(infected(cell), device)
    images, labels = clean_extra(cell)
    started, state = time.monotonic(), State.initial(model, len(labels))
    defence, config = defence_settings({"defence": RIVALS[name][0], "learning_rate": float(rate)})
    stream = random_stream(cell.seed, "rival")
    defence.run(state, images, Selection.of_clean_images(labels), config, generator=stream, device=device)
    seconds = round(time.monotonic() - started, 1)
    return measured(material, state.student) | {"seconds": seconds}


def detected(cell: Cell, name: str) -> tuple[dict[str, Any], np.ndarray]:
    """Return the rates of a rival detector on the infected model's evidence, and what it accuses (bool, (n,))."""
    evidence, started = infected_evidence(cell), time.monotonic()
    detector, config = detector_settings({"detector": name})
    found = detector.detect(evidence, None, config)
    seconds, accused = round(time.monotonic() - started, 1), found.verdict == POISONED
    return verdict_metrics(found.suspicion, accused, open_cell(cell).truth) | {"seconds": seconds}, accused


def infected_evidence(cell: Cell) -> InfectedEvidence:
    """Return what the infected model's probe found."""
    evidence, _ = load_evidence(infected_probe(cell))
    assert isinstance(evidence, InfectedEvidence)
    return evidence


def purified_evidence(probe: Path) -> PurifiedEvidence:
    """Return what a probe after a round found."""
    evidence, _ = load_evidence(probe)
    assert isinstance(evidence, PurifiedEvidence)
    return evidence


def detected_without(cell: Cell, part: str) -> dict[str, Any]:
    """Return the rates of our last detection without one of its parts."""
    last = cell.defended / DEFAULT / f"probe-{len(PRESETS[DEFAULT].keep)}"
    if not last.exists():
        defend(cell, PRESETS[DEFAULT], DEFAULT)
    material, started = open_cell(cell), time.monotonic()
    judged = DETECTOR_ABLATIONS[part](infected_evidence(cell), purified_evidence(last))
    seconds = round(time.monotonic() - started, 1)
    return detection_record(material, judged) | {"seconds": seconds}


def filtered(cell: Cell) -> dict[str, Any]:
    """ART's filter (activation clustering), then adversarial training from scratch on what it leaves."""
    record, accused = detected(cell, "activation_clustering")
    result = of_model(cell, adversarially_trained(cell.folder / FILTER, cell, ~accused))
    return result | {"seconds": result["seconds"] + record["seconds"]}


def unpurified(cell: Cell) -> dict[str, Any]:
    """Our detection on the infected model alone, then adversarial training from scratch on what it leaves."""
    detection, probe = cell.defended / "detection", infected_probe(cell)
    detect_step(probe, probe, DetectConfig(), detection=detection)
    judged, _ = load_detection(detection)
    result = of_model(cell, adversarially_trained(cell.defended / UNPURIFIED, cell, judged.verdict == CLEAN))
    seconds = round(result["seconds"] + _seconds(probe) + _seconds(detection), 1)
    return result | {"seconds": seconds, "detection": detection_record(open_cell(cell), judged)}


UNPURIFIED = "without purification"
ABLATIONS: dict[str, PurifyConfig] = {
    "without relabelling": dataclasses.replace(PRESETS[DEFAULT], relabel=False),
    "without unlearning": dataclasses.replace(PRESETS[DEFAULT], unlearn_weight=0.0),
    "without trigger estimate": dataclasses.replace(PRESETS[DEFAULT], stamp_rate=0.0),
    "without teacher": dataclasses.replace(PRESETS[DEFAULT], consistency_weight=0.0),
    "without adversarial examples": dataclasses.replace(PRESETS[DEFAULT], adversarial_fraction=(0.0,)),
    "without a first round": dataclasses.replace(
        PRESETS[DEFAULT],
        keep=(0.95,),
        epochs=(6,),
        learning_rate=(0.15,),
        adversarial_fraction=(1.0,),
        epsilon=(9 / 255,),
    ),
    "without cross-examination": PRESETS[DEFAULT],
    "PBE": dataclasses.replace(PRESETS["paper"], consistency_weight=0.0, unlearn_weight=0.0, reference_weight=0.0),
}


def measure(cell: Cell, entry: str) -> dict[str, Any]:
    """Do what an entry's name says."""
    simple: dict[str, Callable[[], dict[str, Any]]] = {
        "infected": lambda: of_model(cell, infected(cell)),
        "floor": lambda: of_model(cell, bound(cell, "floor")),
        "ceiling": lambda: of_model(cell, bound(cell, "ceiling")),
        FILTER: lambda: filtered(cell),
        UNPURIFIED: lambda: unpurified(cell),
    }
    if entry in simple:
        return simple[entry]()
    if entry == "aft":
        return repair(cell)
    if entry == COST:
        return cost(cell)
    if entry in PRESETS:
        return defend(cell, PRESETS[entry], entry)
    if entry in ABLATIONS:
        blind = ProbeConfig(splits=0) if entry == "without cross-examination" else None
        return defend(cell, ABLATIONS[entry], entry, blind)
    if entry.startswith("detector "):
        name = entry.removeprefix("detector ")
        return detected_without(cell, name) if name in DETECTOR_ABLATIONS else detected(cell, name)[0]
    if entry.startswith("autoattack "):
        return autoattacked(cell, entry.removeprefix("autoattack "))
    return rival(cell, entry)


def record(cell: Cell, entry: str) -> None:
    """Measure an entry into the cell's file; detectors, AutoAttack records and the cost have places of their own.

    The file is read after measuring: another process may have written to it meanwhile.
    """
    attacked = entry.removeprefix("autoattack ")
    if attacked != entry and not is_done(cell, attacked, cell.load(RESULTS)):
        record(cell, attacked)
    value = measure(cell, entry) | {"commit": git_commit(Path.cwd()), "infected_model": _digest(cell)}
    if is_of_the_defence(entry):
        value["defence"] = DEFENCE
    content = cell.load(RESULTS)
    if entry.startswith("detector "):
        content["detectors"][entry.removeprefix("detector ")] = value
    elif attacked != entry:
        content["entries"][attacked]["robust_accuracy"][1:] = [value]  # after that of PGD
    elif entry == COST:
        content[COST] = value
    else:
        content["entries"][entry] = value
    write_json(RESULTS / f"{cell.name}.json", content)


def _digest(cell: Cell) -> str | None:
    """Return which training of the infected model lies in the cell's folder."""
    card = cell.folder / "infected/model.json"
    return str(json.loads(card.read_text())["sha256"]) if card.exists() else None


def is_of_the_defence(entry: str) -> bool:
    """Tell whether another defence would give the entry another value."""
    return (
        entry in PRESETS
        or entry in ABLATIONS
        or entry.removeprefix("detector ") in (UNPURIFIED, COST, *DETECTOR_ABLATIONS)
    )


def known_of(entry: str, content: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a cell's content holds of an entry."""
    kind, _, name = entry.partition(" ")
    if kind == "detector":
        return content["detectors"].get(name)
    if kind == "autoattack":
        records = content["entries"].get(name, {"robust_accuracy": []})["robust_accuracy"]
        return next((one for one in records if one.keys() >= BESIDE_AUTOATTACK), None)
    return content.get(COST) if entry == COST else content["entries"].get(entry)


def is_done(cell: Cell, entry: str, content: dict[str, Any]) -> bool:
    """Tell whether a cell's content holds an entry, of the present defence and of the infected model of the others."""
    known = known_of(entry, content)
    if known is None or known.get("defence", DEFENCE) != DEFENCE:
        return False
    model = _digest(cell) or content["entries"].get(DEFAULT, known).get("infected_model")
    return entry.removeprefix("autoattack ") in BOUNDS or known.get("infected_model") == model


def is_needless(cell: Cell, entry: str, content: dict[str, Any]) -> bool:
    """Tell whether the cell's attack failed, so that there is nothing to defend against."""
    infected_entry = content["entries"].get("infected")
    return bool(cell.rate and entry != "infected" and infected_entry) and infected_entry["attack_success_rate"] < WORKED


def main() -> None:
    """Fill the grid for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after the entry that passes this")
    parser.add_argument("--only", default="*", help="pattern of CELL/ENTRY, such as 'wanet*/robust'")
    options = parser.parse_args()
    prepare_process()
    RESULTS.mkdir(exist_ok=True)
    started = time.monotonic()
    wanted = [(c, e) for c, e in dict.fromkeys(grid()) if fnmatch.fnmatch(f"{c.name}/{e}", options.only)]
    for number, (cell, entry) in enumerate(wanted, 1):
        content = cell.load(RESULTS)
        if is_done(cell, entry, content) or is_needless(cell, entry, content):
            continue
        if time.monotonic() - started > 60 * options.minutes:
            say(f"bench: time is up before {cell.name}, {entry}: run it again to go on")
            return
        ATTACKS.find(cell.attack)
        say(f"bench {number} of {len(wanted)}: {cell.name}, {entry}")
        record(cell, entry)


if __name__ == "__main__":
    main()
