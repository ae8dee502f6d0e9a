"""Step adversarial probe: a model and a data set in, the evidence that detection needs out."""

import dataclasses
from pathlib import Path

from pud.artifacts.evidence import save_evidence
from pud.artifacts.model import load_model
from pud.artifacts.state import rounds_done
from pud.artifacts.timing import timed_folder
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.errors import InputError
from pud.base.progress import say
from pud.data.images import TRAINING, LabelledImages
from pud.data.readers import open_training_split
from pud.evidence.disagreement import knowledge
from pud.evidence.probing import ProbeConfig, probe_infected, probe_purified
from pud.exchange.sanity import KNOWN, check_model


def matching(split: LabelledImages, classes: list[str], input_shape: list[int], model: Path) -> LabelledImages:
    """Return the split if the model takes its images and has its classes, in the same order.

    Raises:
        InputError: they do not belong together.
    """
    for index, (ours, theirs) in enumerate(zip(classes, split.classes, strict=False)):
        if len(classes) == len(split.classes) and ours != theirs:
            raise InputError(
                f"class {index} is {ours!r} to the model in {model} and {theirs!r} in the data set: bring the classes "
                "of model.json and dataset.json into one order, that of the model's outputs, under the same names"
            )
    if list(split.images.shape[1:]) != input_shape or len(split.classes) != len(classes):
        raise InputError(
            f"the model in {model} takes images {input_shape} of {len(classes)} classes, the data set has "
            f"{list(split.images.shape[1:])} of {len(split.classes)}: give the data set that the model was trained on"
        )
    return split


def probe_step(
    model: Path,
    dataset: Path,
    config: ProbeConfig,
    *,
    seed: int,
    device: str = "auto",
    architecture: str | None = None,
    probe_folder: Path,
) -> dict[str, float]:
    """Probe ``model`` on the training images of ``dataset`` into ``probe_folder``; architecture: see ``load_model``.

    After a round only predictions, contradictions and attacks are new: perturbations and held-out predictions are those
    of the infected model, and are not made again.
    """
    prepare_process()
    where = resolve_device(device)
    network, card = load_model(model, where, architecture=architecture)
    split = matching(open_training_split(dataset, of_any=True), card.classes, card.input_shape, model)
    done = rounds_done(model)
    how, generator = probe_purified if done else probe_infected, random_stream(seed, "probe", done)
    with timed_folder(probe_folder, "probe", "probe.json", model, dataset) as folder:
        evidence, attacked = how(network, split.images, split.labels, config, generator=generator, device=where)
        predicted = evidence.logits.argmax(1)
        given = float((predicted == split.labels).mean())
        whose = "its training" if split.pictures == TRAINING else "these"
        say(f"probe: the model gives {100 * given:.1f} % of {whose} images their label")
        about = {
            "rounds_done": done,
            "adversarial_share": attacked.share.tolist(),
            "settings": dataclasses.asdict(config),
            "classes": list(card.classes),
        }
        strange = not done and knowledge(predicted, split.labels, len(card.classes)).mean() < KNOWN
        if strange and (remedy := check_model(network, split, seed=seed, device=where).remedy):
            about["hint"] = remedy
        save_evidence(folder, evidence, about)
    return {
        "given_label_accuracy": given,
        "fooled": attacked.fooled,
        "adversarial_largest_share": float(attacked.share.max()),
        "adversarial_favourite_class": int(attacked.share.argmax()),
    }
