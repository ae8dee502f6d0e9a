"""What one round of purification hands to the next, as it lies on disk.

A state is a model folder, whose model is the student, with four more files: ``teacher.safetensors``, ``clean.npy`` and
``accused.npy`` (bool, (n,)), and ``state.json`` (how many rounds are done).
"""

from pathlib import Path

import numpy as np

from pud.artifacts.model import load_weights, save_weights
from pud.base.errors import InputError
from pud.base.files import read_array, read_json, write_json
from pud.defences.contract import State
from pud.models.contract import Classifier

FORMAT = "pud-state/2"
TEACHER, CLEAN, ACCUSED, STATE = "teacher.safetensors", "clean.npy", "accused.npy", "state.json"
FILES = (CLEAN, ACCUSED, TEACHER, STATE)
OLD_ACCUSED = "poisoned.npy"  # of pud-state/1


def save_state(folder: Path, state: State) -> None:
    """Write a state but for its student, which is the folder's model."""
    save_weights(folder / TEACHER, state.teacher)
    np.save(folder / CLEAN, state.clean, allow_pickle=False)
    np.save(folder / ACCUSED, state.accused, allow_pickle=False)
    write_json(folder / STATE, {"format": FORMAT, "rounds_done": state.rounds_done})


def load_state(folder: Path, model: Classifier, n: int) -> State:
    """Read the state in a folder, whose model is given; a plain model folder is the state before the first round.

    Raises:
        InputError: a file is missing, corrupt or of an older version, or the state is not of n images.
    """
    state = State.initial(model, n)
    state.rounds_done = rounds_done(folder)
    if state.rounds_done:
        load_weights(folder / TEACHER, state.teacher)
        state.clean = read_array(folder / CLEAN, np.bool_, 1)
        state.accused = read_array(folder / ACCUSED, np.bool_, 1)
        if not n == len(state.clean) == len(state.accused):
            raise InputError(
                f"{folder} was purified on {len(state.clean)} images, not {n}: give the data set of its rounds"
            )
    return state


def rounds_done(model: Path) -> int:
    """Return how many rounds of purification a model folder has behind it; 0 for a plain model.

    Raises:
        InputError: its state cannot be read or is of an older version.
    """
    path = Path(model) / STATE
    if not path.is_file():
        return 0
    if (path.parent / OLD_ACCUSED).is_file():
        raise InputError(f"{model} is a state of an older version of pud: purify again from the infected model")
    return max(0, read_json(path, FORMAT, rounds_done=int)["rounds_done"])
