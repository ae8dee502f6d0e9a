"""Every defence of the registry keeps one contract, and a file with another one is all that it takes to add it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import small_classifier
from torch import nn

from pud.artifacts.model import load_model
from pud.artifacts.state import FILES, load_state, rounds_done, save_state
from pud.base.errors import InputError
from pud.data.images import LabelledImages, pixels
from pud.data.readers.npy import write_split
from pud.defences import DEFENCES, defence_settings
from pud.defences.contract import State
from pud.defences.pud import PRESETS, PurifyConfig
from pud.defences.rounds import run_round
from pud.defences.selection import select, select_without_detection
from pud.detectors.contract import CLEAN, POISONED, UNSURE, Detection
from pud.models.contract import Classifier
from pud.models.training import TrainConfig
from pud.steps.purify import purify_step
from pud.steps.train import train_step

CPU = torch.device("cpu")
N = 96
SHORT: dict[str, dict[str, Any]] = {
    "pud": {"epochs": [1], "steps": 1, "batch_size": 32},
    "fine-tuning": {"epochs": 2, "batch_size": 8, "clean_share": 0.5},
    "ft-sam": {"epochs": 2, "batch_size": 8, "clean_share": 0.5},
    "i-bau": {"rounds": 1, "steps": 4, "batch_size": 8, "clean_share": 0.5},
    "abl": {"isolation_epochs": 1, "epochs": 1, "unlearning_steps": 2, "batch_size": 8, "isolated": 0.2},
    "anp": {"steps": 4, "batch_size": 8, "clean_share": 0.5},
}
every_defence = pytest.mark.parametrize("name", DEFENCES.names())


def small_model() -> Classifier:
    return small_classifier(3).eval()


def detection(accused: np.ndarray, *, inferred: np.ndarray | None = None) -> Detection:
    """A detection that is sure of every image; the later an image, the more suspicious."""
    n = len(accused)
    return Detection(
        suspicion=np.arange(n) - n / 2,
        posterior=accused.astype(float),
        verdict=np.where(accused, POISONED, CLEAN),
        inferred_label=np.full(n, -1) if inferred is None else inferred,
        may_unlearn=accused,
        target_labels=[0],
        separation=np.full(10, 9.0),
        confidence=0.9,
    )


def a_round(name: str, split: LabelledImages, state: State, seed: int = 0, *, accused: int = 20) -> State:
    """A short round on the first images of the sample, of which the last are accused."""
    defence, config = defence_settings({"defence": name, **SHORT.get(name, {})})
    found = detection(np.arange(N) >= N - accused)
    generator = torch.Generator().manual_seed(seed)
    run_round(defence, config, state, split.images[:N], split.labels[:N], found, generator=generator, device=CPU)
    return state


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@every_defence
def test_a_round_leaves_a_usable_state_of_another_model(name: str, train_split: LabelledImages) -> None:
    state = a_round(name, train_split, State.initial(small_model(), N))
    assert state.rounds_done == 1
    assert state.student is not state.teacher
    assert not state.student.training
    assert not same(state.student, small_model())
    assert state.student.state_dict().keys() == state.teacher.state_dict().keys() == small_model().state_dict().keys()
    assert torch.isfinite(state.student(pixels(np.array(train_split.images[:8])))).all()
    assert (state.clean & state.accused).sum() == 0 < state.clean.sum()
    assert state.accused.sum() == 20


@every_defence
def test_rounds_depend_on_their_generators_alone(name: str, train_split: LabelledImages) -> None:
    states = []
    for elsewhere in (1, 2):
        state = State.initial(small_model(), N)
        for index in (0, 1):
            torch.manual_seed(elsewhere)
            a_round(name, train_split, state, seed=index)
        states.append(state)
    assert states[0].rounds_done == 2
    assert same(states[0].student, states[1].student)
    assert same(states[0].teacher, states[1].teacher)


@every_defence
def test_where_no_image_is_clean_the_model_stays_and_the_round_is_counted(
    name: str, train_split: LabelledImages
) -> None:
    state = a_round(name, train_split, State.initial(small_model(), N), accused=N)
    assert same(state.student, small_model())
    assert (state.rounds_done, state.clean.sum(), state.accused.sum()) == (1, 0, N)


@every_defence
def test_accused_images_do_not_matter_to_who_unlearns_none(name: str, train_split: LabelledImages) -> None:
    """Ours unlearns them, ABL takes all images; a repair must not look at them."""
    images = np.array(train_split.images)
    images[N - 20 : N] = 255 - images[N - 20 : N]
    altered = dataclasses.replace(train_split, images=images)
    students = [a_round(name, one, State.initial(small_model(), N)).student for one in (train_split, altered)]
    assert same(*students) is (name not in ("pud", "abl"))


def test_a_repair_takes_at_most_its_share_of_each_class_the_least_suspicious() -> None:
    labels = np.repeat([0, 1], [60, 40])
    defence, config = defence_settings({"defence": "fine-tuning", "clean_share": 0.1})
    keep, relabel = defence.ask(config, 0)
    chosen = select(detection(np.arange(100) < 20), labels, State.initial(nn.Linear(1, 1), 100), keep, relabel)
    np.testing.assert_array_equal(np.flatnonzero(chosen.clean), [20, 21, 22, 23, 60, 61, 62, 63])


def test_ours_is_meant_where_no_defence_is_named() -> None:
    assert defence_settings({})[0].name == "pud"
    assert defence_settings({"preset": "erase"})[1] == PRESETS["erase"]
    assert defence_settings({"keep": [0.3]})[1] == dataclasses.replace(PurifyConfig(), keep=(0.3,))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"defence": "prayer"}, "unknown defence 'prayer': choose one of abl, anp, fine-tuning, ft-sam, i-bau, pud"),
        ({"defence": ["anp"]}, "unknown defence"),
        ({"defence": "anp", "preset": "robust"}, "AnpConfig has no setting preset: choose from batch_size"),
        ({"defence": "i-bau", "radius": 0}, "IBauConfig.radius is 0: give a number above 0"),
    ],
)
def test_an_unknown_defence_or_setting_is_refused_with_the_choice(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        defence_settings(settings)


# ----------------------------------------------------------------------------------------------------------- selection


def test_what_was_accused_once_is_not_trained_on_again_nor_unlearned_when_cleared() -> None:
    labels, state = np.zeros(6, int), State.initial(nn.Linear(1, 1), 6)
    state.accused[:2], state.rounds_done = True, 1
    chosen = select(detection(np.array([0, 1, 1, 0, 0, 0], bool)), labels, state, 1.0, True)
    assert chosen.accused.tolist() == [True, True, True, False, False, False]
    assert chosen.unlearned.tolist() == [False, True, True, False, False, False]
    assert chosen.clean.tolist() == [False, False, False, True, True, True]


@pytest.mark.parametrize("relabel", [True, False])
def test_an_image_with_an_inferred_label_is_trained_under_it_or_unlearned(relabel: bool) -> None:
    """Of four accused images one shows its own label, two show another, one nobody knows what."""
    labels, accused = np.array([3, 3, 3, 3, 5]), np.array([1, 1, 1, 1, 0], bool)
    found = detection(accused, inferred=np.array([3, 4, 7, -1, -1]))
    chosen = select(found, labels, State.initial(nn.Linear(1, 1), 5), 1.0, relabel)
    assert chosen.labels.tolist() == ([3, 4, 7, 3, 5] if relabel else [3, 3, 3, 3, 5])
    assert chosen.relabelled.tolist() == [False, relabel, relabel, False, False]
    assert chosen.clean.tolist() == [False, relabel, relabel, False, True]
    assert chosen.unlearned.tolist() == [not relabel, not relabel, not relabel, True, False]


def test_only_what_detection_allows_is_unlearned() -> None:
    accused = np.array([1, 1, 0], bool)
    careful = dataclasses.replace(detection(accused), may_unlearn=np.array([1, 0, 0], bool))
    chosen = select(careful, np.zeros(3, int), State.initial(nn.Linear(1, 1), 3), 1.0, True)
    assert chosen.unlearned.tolist() == [True, False, False]


def test_an_image_of_which_detection_is_unsure_is_left_out() -> None:
    found = detection(np.zeros(4, bool))
    unsure = dataclasses.replace(found, verdict=np.array([CLEAN, UNSURE, CLEAN, CLEAN]))
    chosen = select(unsure, np.zeros(4, int), State.initial(nn.Linear(1, 1), 4), 1.0, True)
    assert np.flatnonzero(~chosen.clean).tolist() == [1]
    assert not chosen.unlearned.any()
    assert not chosen.accused.any()


def test_without_a_detection_all_is_clean_but_what_was_accused_before() -> None:
    state = State.initial(nn.Linear(1, 1), 5)
    state.accused[4] = True
    chosen = select_without_detection(np.zeros(5, int), state, 1.0)
    assert chosen.clean.tolist() == [True, True, True, True, False]
    assert not (chosen.unlearned | chosen.relabelled).any()


# ------------------------------------------------------------------------------------------------------------- on disk


def test_a_state_survives_the_round_trip_bit_for_bit(train_split: LabelledImages, tmp_path: Path) -> None:
    state = a_round("pud", train_split, State.initial(small_model(), N))
    save_state(tmp_path, state)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    read = load_state(tmp_path, state.student, N)
    assert same(read.teacher, state.teacher)
    assert np.array_equal(read.clean, state.clean)
    assert np.array_equal(read.accused, state.accused)
    assert read.rounds_done == rounds_done(tmp_path) == 1


def test_a_plain_model_folder_is_the_state_before_the_first_round(tmp_path: Path) -> None:
    state = load_state(tmp_path, small_model(), 7)
    assert (state.rounds_done, state.clean.sum(), len(state.accused)) == (0, 0, 7)


def older(folder: Path) -> None:
    (folder / "accused.npy").rename(folder / "poisoned.npy")
    (folder / "state.json").write_text(json.dumps({"format": "pud-state/1", "rounds_done": 1}))


WRONG_STATES = {
    "of an older version": (older, "is a state of an older version of pud: purify again from the infected model"),
    "without its masks": (lambda folder: (folder / "clean.npy").unlink(), "clean.npy is missing"),
    "of masks of another length": (lambda folder: np.save(folder / "accused.npy", np.zeros(3, bool)), "was purified"),
    "that counts no rounds": (lambda folder: (folder / "state.json").write_text("{}"), "is not a pud-state/2 file"),
}


@pytest.mark.parametrize("wrong", WRONG_STATES)
def test_a_wrong_state_is_refused_by_name(wrong: str, tmp_path: Path) -> None:
    state = State.initial(small_model(), N)
    state.rounds_done = 1
    save_state(tmp_path, state)
    spoil, words = WRONG_STATES[wrong]
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        load_state(tmp_path, small_model(), N)


# ------------------------------------------------------------------------------------------------------ in the pipeline


@pytest.fixture(scope="module")
def dataset(train_split: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the sample's first images. Do not write into it."""
    folder = tmp_path_factory.mktemp("data")
    about = {"classes": train_split.classes, "name": train_split.name, "source": "the sample of the tests"}
    write_split(folder / "train", train_split.images[:160], train_split.labels[:160], **about)
    return folder


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of it. Do not write into it."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    train_step(dataset, TrainConfig(epochs=1, batch_size=32), seed=0, model=folder)
    return folder


NEW_DEFENCE = '''
"""Forget everything: the weights of the last layer become zero."""

from dataclasses import dataclass
from functools import partial

import torch

from pud.base.config import Share, from_mapping
from pud.defences.contract import Defence, SelectionRule


@dataclass(frozen=True)
class AmnesiaConfig:
    """What stays of the weights."""

    rest: Share = 0.0


def run(state, images, selection, config, *, generator, device):
    assert len(images) == len(selection.labels)
    with torch.no_grad():
        list(state.student.parameters())[-2].mul_(config.rest)
    state.replace_model(state.student)


ask = lambda config, round_index: SelectionRule(keep=1.0, relabel=False)
DEFENCES = {"amnesia": Defence("amnesia", partial(from_mapping, AmnesiaConfig), ask, run)}
'''


def test_a_defence_in_a_file_of_its_own_is_found_and_runs_in_the_pipeline(
    model: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pud.defences

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "amnesia.py").write_text(NEW_DEFENCE)
    monkeypatch.setattr(pud.defences, "__path__", [*pud.defences.__path__, str(tmp_path / "elsewhere")])
    defence, config = defence_settings({"defence": "amnesia", "rest": 0.5})
    state = tmp_path / "state"
    facts = purify_step(model, dataset, None, config, defence=defence.name, seed=0, purified=state)
    assert facts["clean_images"] == len(np.load(state / "clean.npy")) == np.load(state / "clean.npy").sum()
    training = json.loads((state / "model.json").read_text())["training"]
    assert training == {"defence": "amnesia", "rest": 0.5, "seed": 0, "rounds_done": 1}
    before, after = ([*load_model(folder, CPU)[0].parameters()][-2] for folder in (model, state))
    torch.testing.assert_close(after, 0.5 * before)


def test_one_defence_goes_on_with_the_state_of_another(model: Path, dataset: Path, tmp_path: Path) -> None:
    before = model
    for index, name in enumerate(("fine-tuning", "pud"), 1):
        defence, config = defence_settings({"defence": name, **SHORT[name]})
        after = tmp_path / f"state-{index}"
        purify_step(before, dataset, None, config, defence=defence.name, seed=0, purified=after)
        assert rounds_done(after) == index
        before = after
