"""Step purify: one round on the state that the round before left; round 0 starts from the infected model."""

import dataclasses
from pathlib import Path

import numpy as np

from pud.artifacts.model import load_model, load_weights, save_model, save_weights
from pud.artifacts.provenance import STATE, made_from
from pud.artifacts.results import STATE_FORMAT, load_detection, rounds_done, timed_folder
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.errors import InputError
from pud.base.files import read_array, sha256, write_json
from pud.base.progress import say
from pud.data.images import open_training_split
from pud.defences.pud import PurifyConfig, State, least_suspicious, of_round, purify
from pud.detectors.pud import CLEAN, POISONED, Detection
from pud.models.classifier import ResNet
from pud.models.training import warn_of_few_steps
from pud.steps.probe import matching


def save_state(folder: Path, state: State) -> None:
    """Write what a model folder needs to be a state too: the student is the model itself."""
    save_weights(folder / "teacher.safetensors", state.teacher)
    np.save(folder / "clean.npy", state.clean, allow_pickle=False)
    np.save(folder / "poisoned.npy", state.poisoned, allow_pickle=False)
    write_json(folder / "state.json", {"format": STATE_FORMAT, "rounds_done": state.rounds_done})


def load_state(folder: Path, model: ResNet, n: int) -> State:
    """Read a state; a plain model folder is the state before the first round."""
    state = State.initial(model, n)
    state.rounds_done = rounds_done(folder)
    if state.rounds_done:
        load_weights(folder / "teacher.safetensors", state.teacher)
        state.clean = read_array(folder / "clean.npy", np.bool_, 1)
        state.poisoned = read_array(folder / "poisoned.npy", np.bool_, 1)
        if not n == len(state.clean) == len(state.poisoned):
            raise InputError(
                f"{folder} was purified on {len(state.clean)} images, not {n}: give the data set of its rounds"
            )
    return state


def all_clean(n: int) -> Detection:
    """Return the detection that accuses nobody."""
    nothing = np.zeros(n)
    return Detection(nothing, nothing, np.full(n, CLEAN), np.full(n, -1), [], nothing[:0], 1.0)


def purify_step(
    model: Path,
    dataset: Path,
    detection: Path | None,
    config: PurifyConfig,
    *,
    seed: int,
    device: str = "auto",
    purified: Path,
) -> dict[str, float]:
    """Run the next round on ``model`` (a model or a state folder) into ``purified`` (both in one).

    Without a detection the data set is held to be clean: model repair (AFT) on a clean extra set.
    """
    prepare_process()
    where = resolve_device(device)
    network, card = load_model(model, where)
    split = matching(open_training_split(dataset), card.classes, card.input_shape, model)
    state = load_state(model, network, len(split.labels))
    round_index = state.rounds_done
    if detection:
        judged, _ = load_detection(detection, split.labels)
    else:
        judged = all_clean(len(split.labels))
    keep = of_round(config.keep, round_index)
    accused, known = judged.verdict == POISONED, (judged.shown >= 0) & config.relabel
    cleared = state.poisoned & ~accused  # since an earlier round
    relabelled = known & (judged.shown != split.labels) & ~cleared
    labels = np.where(relabelled, judged.shown, split.labels)
    apart = np.isin(split.labels, np.flatnonzero(judged.separation >= of_round(config.unlearn_separation, round_index)))
    unlearned = accused & ~known & apart
    state.poisoned |= accused  # who was accused once is not trained on again
    trusted = (judged.verdict == CLEAN) & ~state.poisoned
    state.clean = relabelled | least_suspicious(split.labels, judged.suspicion, trusted, keep)
    inputs = [model, dataset, *([detection] if detection else [])]
    with timed_folder(purified, "purify", "model.json", *inputs) as folder:
        if state.clean.any() and of_round(config.epochs, round_index) > 0:
            warn_of_few_steps(int(state.clean.sum()), config.batch_size)
            generator = random_stream(seed, "purify", round_index)
            purify(
                state, np.array(split.images), labels, config, generator=generator, device=where, unlearned=unlearned
            )
        else:
            say(f"purify: nothing left to do in round {round_index + 1}, the model stays as it is")
            state.rounds_done += 1
        training = {**dataclasses.asdict(config), "seed": seed, "rounds_done": state.rounds_done}
        save_state(folder, state)
        digests = made_from(model, dataset, detection) | {file: sha256(folder / file) for file in STATE}
        save_model(folder, state.student, dataclasses.replace(card, training=training, made_from=digests))
    return {
        "clean_images": int((state.clean & ~relabelled).sum()),
        "relabelled_images": int(relabelled.sum()),
        "unlearned_images": int(unlearned.sum()),
    }
