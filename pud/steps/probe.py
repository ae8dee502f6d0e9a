"""Step adversarial probe: a model and a data set in, the evidence that detection needs out."""

import dataclasses
from pathlib import Path

import numpy as np

from pud.artifacts.model import load_model
from pud.artifacts.results import save_evidence, timed_folder
from pud.artifacts.state import rounds_done
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.errors import InputError
from pud.base.progress import say
from pud.data.images import Split, open_training_split
from pud.detectors.pud import DetectConfig, knowledge
from pud.evidence.probing import ProbeConfig, probe
from pud.models.normalisation import hint

KNOWN = DetectConfig.knowledge  # below this a model does not know its training images, on average


def matching(split: Split, classes: list[str], input_shape: list[int], model: Path) -> Split:
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
    probe_folder: Path,
) -> dict[str, float]:
    """Probe ``model`` on the training images of ``dataset`` into ``probe_folder``.

    After a round only predictions, contradictions and adversarial evidence are new: perturbations and witnesses are
    those of the infected model, and are not drawn again.
    """
    prepare_process()
    where = resolve_device(device)
    network, card = load_model(model, where)
    split = matching(open_training_split(dataset), card.classes, card.input_shape, model)
    done = rounds_done(model)
    if done:
        config = dataclasses.replace(config, noise_draws=0, mix_draws=0)
    with timed_folder(probe_folder, "probe", "probe.json", model, dataset) as folder:
        evidence = probe(
            network,
            np.array(split.images),
            split.labels,
            config,
            generator=random_stream(seed, "probe", done),
            device=where,
            purified=bool(done),
        )
        given = evidence.logits.argmax(1) == split.labels
        say(f"probe: the model gives {100 * given.mean():.1f} % of its training images their label")
        found = None
        if not done and knowledge(evidence.logits.argmax(1), split.labels, len(card.classes)).mean() < KNOWN:
            found = hint(network, split.images, split.labels, generator=random_stream(seed, "hint"), device=where)
        attacked = evidence.adversarial_labels >= 0
        went = evidence.adversarial_labels[attacked]
        count = max(1, len(went))
        share = np.bincount(went, minlength=len(card.classes)) / count
        about = {
            "rounds_done": done,
            "adversarial_share": share.tolist(),
            "settings": dataclasses.asdict(config),
            "classes": list(card.classes),
            **({"hint": found} if found else {}),
        }
        save_evidence(folder, evidence, about)
    fooled = float((went != split.labels[attacked]).sum() / count)
    return {
        "given_label_accuracy": float(given.mean()),
        "fooled": fooled,
        "adversarial_largest_share": float(share.max()),
        "adversarial_favourite_class": int(share.argmax()),
    }
