"""Step purify: one round on the state that the round before left; round 0 starts from the infected model."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

from pud.artifacts.detection import load_detection
from pud.artifacts.model import load_model, save_model
from pud.artifacts.provenance import made_from
from pud.artifacts.state import FILES, load_state, save_state
from pud.artifacts.timing import timed_folder
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.files import sha256
from pud.base.memory import halving_batches
from pud.data.readers import open_training_split
from pud.defences import DEFAULT, DEFENCES
from pud.defences.contract import Selection, State
from pud.defences.rounds import run_round
from pud.steps.probe import matching


def purify_step(
    model: Path,
    dataset: Path,
    detection: Path | None,
    config: Any,
    *,
    defence: str = DEFAULT,
    seed: int,
    device: str = "auto",
    architecture: str | None = None,
    purified: Path,
) -> dict[str, float]:
    """Run the next round on ``model`` (a model or a state folder) into ``purified`` (both in one).

    config: of the defence of this name. Without a detection the data set is held to be clean: model repair (AFT) on a
    clean extra set. architecture: see ``load_model``.
    """
    prepare_process()
    where = resolve_device(device)
    network, card = load_model(model, where, architecture=architecture)
    split = matching(open_training_split(dataset), card.classes, card.input_shape, model)
    state = load_state(model, network, len(split.labels))
    found = load_detection(detection, split.labels)[0] if detection else None
    inputs = [model, dataset, *([detection] if detection else [])]
    with timed_folder(purified, "purify", "model.json", *inputs) as folder:

        def after_a_round(config: Any) -> tuple[State, Selection]:
            after, generator = copy.deepcopy(state), random_stream(seed, "purify", state.rounds_done)
            data = (split.images, split.labels, found)
            entry = DEFENCES.find(defence)
            return after, run_round(entry, config, after, *data, generator=generator, device=where)

        (after, selection), config = halving_batches(after_a_round, config)
        save_state(folder, after)
        made = made_from(model, dataset, detection) | {file: sha256(folder / file) for file in FILES}
        training = {"defence": defence, **dataclasses.asdict(config), "seed": seed, "rounds_done": after.rounds_done}
        save_model(folder, after.student, dataclasses.replace(card, training=training, made_from=made))
    return {
        "clean_images": int((selection.clean & ~selection.relabelled).sum()),
        "relabelled_images": int(selection.relabelled.sum()),
        "unlearned_images": int(selection.unlearned.sum()),
    }
