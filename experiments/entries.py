"""The entries of a cell: each one thing done to its infected model, what it is called, and where its record is kept.

Models and data lie in ``runs/bench`` and are made again where they are missing, the infected model perhaps otherwise on
another machine.
"""

import copy
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.ablations import DETECTOR_ABLATIONS
from experiments.plan import DEFAULT, FILTER, FORMAT, RIVALS, WORK, Cell, innocent
from pud.adversarial.robustness import EvaluateConfig, autoattack_accuracy, masking_checks, robust_accuracy
from pud.artifacts.detection import load_detection
from pud.artifacts.evidence import load_evidence
from pud.artifacts.ground_truth import load_truth
from pud.artifacts.model import load_model, save_model
from pud.artifacts.timing import timed_folder
from pud.attacks.ground_truth import GroundTruth
from pud.attacks.poisoning import PoisonConfig
from pud.base.device import random_stream, resolve_device
from pud.base.files import finished_folder, read_json, write_json
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
from pud.evidence.probing import ProbeConfig
from pud.models.contract import Classifier
from pud.models.inference import logits
from pud.models.training import TrainConfig, train
from pud.steps.detect import detect_step
from pud.steps.evaluate import accuracies, drift, first
from pud.steps.poison import poison_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.train import train_step

DATA = "file:data"
CLEAN_SHARE = 0.05  # of the training size, what rivals ask for
PGD_IMAGES, AUTOATTACK_IMAGES, DRIFT_IMAGES = 1_000, 256, 500
WHOLE = PRESETS[DEFAULT]
ONE_ROUND = dataclasses.replace(
    WHOLE,
    keep=(0.95,),
    epochs=(2,),
    doublings=(3,),
    learning_rate=(0.15,),
    adversarial_fraction=(1.0,),
    epsilon=(9 / 255,),
)
FROM_SCRATCH = dataclasses.replace(ONE_ROUND, keep=(1.0,), epsilon=(EvaluateConfig.epsilon,))
RELEARNING, RELEARNING_EPOCHS, RELEARNING_RATE = (5, 10, 50), 5, 0.01


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
        config = dataclasses.replace(FROM_SCRATCH, epochs=(round(FROM_SCRATCH.epochs[0] * len(kept) / kept.sum()),))
        with timed_folder(folder, "train", "model.json") as made:
            purify(state, np.array(split.images), split.labels, config, generator=stream, device=resolve_device())
            save_model(made, state.student, card)
    return folder


def floor(cell: Cell) -> Path:
    """Return the folder of a model trained plainly on the images as they were before the attack, once a seed."""
    return infected(innocent(cell.seed))


def ceiling(cell: Cell) -> Path:
    """Return the folder of a model trained as ``robust`` trains on the images as they were, once a seed."""
    source = innocent(cell.seed)
    every = np.ones(len(open_cell(source).train.labels), bool)
    return adversarially_trained(WORK / f"ceiling_s{cell.seed}", source, every)


def clean_extra(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Return clean images and labels, 5 % of the training size, that the training set does not hold."""
    whole = open_split(Path(DATA.partition(":")[2]) / "train")
    stream = random_stream(cell.seed, "poison")
    order = torch.randperm(len(whole.labels), generator=stream).numpy()
    size = PoisonConfig.train_size
    chosen = np.sort(order[size : size + round(CLEAN_SHARE * size)])
    return np.array(whole.images[chosen]), np.array(whole.labels[chosen])


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
    targets = np.unique(material.train.labels[material.truth.poisoned]).tolist()  # none without poison
    return detection_metrics(judged, material.truth) | {"true_targets": targets}


# ------------------------------------------------------------------------------------------------------------ measures


def defend(cell: Cell, name: str, preset: PurifyConfig, probe: ProbeConfig | None = None) -> dict[str, Any]:
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


def last_round(cell: Cell, kind: str) -> Path:
    """Return the folder of the last round's ``model`` or ``probe``, of the default preset; it is run where missing."""
    folder = cell.defended / DEFAULT / f"{kind}-{len(WHOLE.keep)}"
    if not folder.exists():
        defend(cell, DEFAULT, WHOLE)
    return folder


def repair(cell: Cell) -> dict[str, Any]:
    """Adversarial fine-tuning on a clean extra set, the paper's setting of model repair: no detection."""
    extra, purified = cell.folder / "extra", cell.defended / "aft"
    if not purified.exists():
        with finished_folder(extra, "train/dataset.json") as folder:
            split, (images, labels) = open_cell(cell).train, clean_extra(cell)
            about = {"name": split.name, "source": "clean extra set"}
            write_split(folder / "train", images, labels, classes=split.classes, **about)
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


def autoattacked(cell: Cell, folder: Path) -> dict[str, Any]:
    """Return the AutoAttack record of the model in a folder."""
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
    source, model = innocent(cell.seed), infected(cell)
    every, rounds = np.ones(len(open_cell(source).train.labels), bool), range(1, len(WHOLE.keep) + 1)
    last_round(cell, "model")
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        folder = Path(name)
        before = _seconds(adversarially_trained(folder / "before", source, every))
        for index in rounds:
            detection, purified = cell.defended / DEFAULT / f"detection-{index}", folder / f"model-{index}"
            purify_step(model, cell.folder / "dataset", detection, WHOLE, seed=cell.seed, purified=purified)
            model = purified
        ours = sum(_seconds(folder / f"model-{index}") for index in rounds)
        after = _seconds(adversarially_trained(folder / "after", source, every))
    return {DEFAULT: round(ours, 1), "ceiling": round((before + after) / 2, 1), "ceilings": [before, after]}


def rival(cell: Cell, name: str, rate: float) -> dict[str, Any]:
    """Repair the infected model as the defence of this name does, with the clean images that it asks for."""
    device, material = resolve_device(), open_cell(cell)
    model, _ = load_model(infected(cell), device)
    images, labels = clean_extra(cell)
    started, state = time.monotonic(), State.initial(model, len(labels))
    defence, config = defence_settings({"defence": name, "learning_rate": rate})
    stream = random_stream(cell.seed, "rival")
    defence.run(state, images, Selection.of_clean_images(labels), config, generator=stream, device=device)
    seconds = round(time.monotonic() - started, 1)
    return measured(material, state.student) | {"seconds": seconds}


def judged_by(cell: Cell, name: str) -> tuple[Detection, float]:
    """Return what a rival detector says on the infected model's evidence, and after how many seconds."""
    found, started = evidence(infected_probe(cell)), time.monotonic()
    detector, config = detector_settings({"detector": name})
    return detector.detect(found, None, config), round(time.monotonic() - started, 1)


def detected(cell: Cell, name: str) -> dict[str, Any]:
    """Return the rates of a rival detector."""
    found, seconds = judged_by(cell, name)
    return verdict_metrics(found.suspicion, found.verdict == POISONED, open_cell(cell).truth) | {"seconds": seconds}


def evidence(probe: Path) -> Any:
    """Return what a probe found."""
    return load_evidence(probe)[0]


def detected_without(cell: Cell, name: str) -> dict[str, Any]:
    """Return the rates of our last detection without one of its parts."""
    last = last_round(cell, "probe")
    material, started = open_cell(cell), time.monotonic()
    judged = DETECTOR_ABLATIONS[name](evidence(infected_probe(cell)), evidence(last))
    seconds = round(time.monotonic() - started, 1)
    return detection_record(material, judged) | {"seconds": seconds}


def filtered(cell: Cell) -> dict[str, Any]:
    """ART's filter (activation clustering), then adversarial training from scratch on what it leaves."""
    found, seconds = judged_by(cell, "activation_clustering")
    result = of_model(cell, adversarially_trained(cell.folder / FILTER, cell, found.verdict != POISONED))
    return result | {"seconds": result["seconds"] + seconds}


def unpurified(cell: Cell) -> dict[str, Any]:
    """Our detection on the infected model alone, then adversarial training from scratch on what it leaves."""
    detection, probe = cell.defended / "detection", infected_probe(cell)
    detect_step(probe, probe, DetectConfig(), detection=detection)
    judged, _ = load_detection(detection)
    folder = adversarially_trained(cell.defended / "without purification", cell, judged.verdict == CLEAN)
    result = of_model(cell, folder)
    seconds = round(result["seconds"] + _seconds(probe) + _seconds(detection), 1)
    return result | {"seconds": seconds, "detection": detection_record(open_cell(cell), judged)}


# ------------------------------------------------------------------------------------------------------------- entries

Record = dict[str, Any]
BESIDE_AUTOATTACK = {"white_box_accuracy", "pgd_accuracy"}  # on the same images


@dataclasses.dataclass(frozen=True)
class Entry:
    """name: on the command line. kind: of what. measure: from a cell to the record.

    ours: another defence would give another record. bound: another training of the infected model would not, for the
    entry is of images without poison. place, key: where ``results/*.json`` hold the record, under its name of their
    entries unless said otherwise.
    """

    name: str
    kind: str
    measure: Callable[[Cell], Record]
    ours: bool = False
    bound: bool = False
    place: str = "entries"
    key: str = ""

    def known(self, content: Record) -> Record | None:
        """Return the record in the content of a cell's file, if it is there."""
        return (content[self.place] if self.place else content).get(self.key or self.name)

    def keep(self, content: Record, record: Record) -> None:
        """Put the record into the content of a cell's file."""
        (content[self.place] if self.place else content)[self.key or self.name] = record


@dataclasses.dataclass(frozen=True)
class AutoAttacked(Entry):
    """AutoAttack on the model of another entry, whose record holds this one's, after that of PGD."""

    of: Entry = dataclasses.field(kw_only=True)

    def known(self, content: Record) -> Record | None:
        records = (self.of.known(content) or {}).get("robust_accuracy", [])
        return next((one for one in records if one.keys() >= BESIDE_AUTOATTACK), None)

    def keep(self, content: Record, record: Record) -> None:
        content["entries"][self.of.name]["robust_accuracy"][1:] = [record]


def _autoattacked(entry: Entry, model: Callable[[Cell], Path]) -> Entry:
    """Return the entry of AutoAttack on another entry's model, which lies where ``model`` says once it was measured."""

    def measure(cell: Cell) -> Record:
        if not model(cell).exists():
            entry.measure(cell)
        return autoattacked(cell, model(cell))

    return AutoAttacked(f"autoattack {entry.name}", "autoattack", measure, bound=entry.bound, of=entry)


def _rounds(kind: str, name: str, config: PurifyConfig, probe: ProbeConfig | None = None) -> Entry:
    return Entry(name, kind, partial(defend, name=name, preset=config, probe=probe), ours=True)


def _model(name: str, folder: Callable[[Cell], Path], *, bound: bool) -> Entry:
    return Entry(name, "reference", lambda cell: of_model(cell, folder(cell)), bound=bound)


def _detector(name: str, measure: Callable[..., Record], *, ours: bool) -> Entry:
    return Entry(f"detector {name}", "detector", partial(measure, name=name), ours, place="detectors", key=name)


INFECTED = _model("infected", infected, bound=False)
FLOOR, CEILING = (_model("floor", floor, bound=True), _model("ceiling", ceiling, bound=True))
ROBUST, ERASE, RETRAIN, PAPER = (
    _rounds("preset", name, PRESETS[name]) for name in ("robust", "erase", "retrain", "paper")
)
AFT = Entry("aft", "preset", repair, ours=True)
PBE = dataclasses.replace(PRESETS["paper"], consistency_weight=0.0, unlearn_weight=0.0, reference_weight=0.0)
PARTS: dict[str, PurifyConfig] = {
    "without relabelling": dataclasses.replace(WHOLE, relabel=False),
    "without unlearning": dataclasses.replace(WHOLE, unlearn_weight=0.0),
    "without trigger estimate": dataclasses.replace(WHOLE, stamp_rate=0.0),
    "without teacher": dataclasses.replace(WHOLE, consistency_weight=0.0),
    "without adversarial examples": dataclasses.replace(WHOLE, adversarial_fraction=(0.0,)),
    "without a first round": ONE_ROUND,
}
ABLATIONS = [
    *(_rounds("ablation", name, config) for name, config in PARTS.items()),
    _rounds("ablation", "without cross-examination", WHOLE, ProbeConfig(splits=0)),
    _rounds("ablation", "PBE", PBE),
    Entry("without purification", "ablation", unpurified, ours=True),
]
FILTERED = Entry(FILTER, "rival", filtered)
RIVAL_REPAIRS = [
    Entry(f"{name} lr={rate:g}", "rival", partial(rival, name=defence, rate=rate))
    for name, (defence, rates) in RIVALS.items()
    for rate in rates
]
RIVAL_DETECTORS = [_detector(name, detected, ours=False) for name in DETECTORS.names() if name not in (OURS, "none")]
OUR_DETECTORS = [_detector(name, detected_without, ours=True) for name in DETECTOR_ABLATIONS]
AUTOATTACKS = [
    _autoattacked(ROBUST, lambda cell: cell.defended / DEFAULT / f"model-{len(WHOLE.keep)}"),
    _autoattacked(CEILING, ceiling),
    _autoattacked(FILTERED, lambda cell: cell.folder / FILTER),
]
COST = Entry("cost", "cost", cost, ours=True, place="")
ENTRIES = {
    entry.name: entry
    for entry in (
        *(INFECTED, FLOOR, CEILING, ROBUST, ERASE, RETRAIN, PAPER, AFT, *ABLATIONS),
        *(FILTERED, *RIVAL_REPAIRS, *RIVAL_DETECTORS, *OUR_DETECTORS, *AUTOATTACKS, COST),
    )
}
