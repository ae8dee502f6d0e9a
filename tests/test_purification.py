"""Purification: each piece against its closed form, and a small real round."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from small import small_classifier
from torch import nn

from pud.base.errors import InputError
from pud.data.batches import Batches
from pud.data.images import LabelledImages, pixels
from pud.defences.contract import State
from pud.defences.pud import (
    DEFAULT_PRESET,
    PRESETS,
    PurifyConfig,
    _Lesson,
    forget,
    of_round,
    purify,
    purify_config,
    teacher_update,
)
from pud.defences.selection import least_suspicious
from pud.defences.trigger import AffineTrigger, estimate_trigger
from pud.models.contract import Classifier
from pud.models.inference import logits

CPU = torch.device("cpu")


def estimate(stamped: torch.Tensor, clean: torch.Tensor) -> AffineTrigger:
    """The estimate from pictures that are not rounded to whole numbers."""
    pictures = Batches(255 * torch.cat([stamped, clean]).numpy(), CPU)
    return estimate_trigger(pictures, np.arange(len(stamped)), len(stamped) + np.arange(len(clean)))


def some_images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("schedule", "expected"), [((1, 2, 3), [1, 2, 3, 3, 3]), ((7,), [7, 7, 7, 7, 7]), ((0.5, 0.1), [0.5] + 4 * [0.1])]
)
def test_the_last_number_of_a_schedule_serves_all_further_rounds(
    schedule: tuple[float, ...], expected: list[float]
) -> None:
    assert [of_round(schedule, index) for index in range(5)] == expected


def test_an_affine_stamp_is_recovered_exactly() -> None:
    clean = some_images(50)
    generator = torch.Generator().manual_seed(1)
    scale = torch.rand(1, 6, 6, generator=generator)
    shift = (1 - scale) * torch.rand(1, 6, 6, generator=generator)
    found = estimate(scale * clean + shift, clean)
    torch.testing.assert_close(found.scale, scale, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.shift, shift, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found(clean), scale * clean + shift, atol=1e-5, rtol=1e-5)


def test_an_affine_stamp_is_recovered_from_other_images() -> None:
    found = estimate(0.8 * some_images(3000, 1) + 0.1, some_images(3000, 2))
    assert (found.scale - 0.8).abs().max() < 0.05
    assert (found.shift - 0.1).abs().max() < 0.03


def test_a_patch_on_a_constant_background_is_a_shift() -> None:
    clean = torch.zeros(20, 1, 6, 6)
    stamped = clean.clone()
    stamped[..., -3:, -3:] = 1
    found = estimate(stamped, clean)
    assert torch.equal(found.scale, torch.ones(1, 6, 6))
    assert torch.equal(found.shift, stamped[0])
    assert torch.equal(found(clean), stamped)


def test_an_estimate_stays_in_the_image_range_and_leaves_its_input_alone() -> None:
    images = some_images(4)
    before = images.clone()
    stamped = AffineTrigger(torch.full((1, 6, 6), 0.9), torch.full((1, 6, 6), 0.5))(images)
    assert stamped.max() == 1
    assert torch.equal(images, before)


def test_a_stamp_twice_as_strong_moves_each_image_twice_as_far() -> None:
    images, trigger = some_images(2), AffineTrigger(torch.full((1, 6, 6), 0.9), torch.full((1, 6, 6), 0.05))
    moved = trigger(images, torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)) - images
    torch.testing.assert_close(moved, torch.tensor([1.0, 2.0]).view(2, 1, 1, 1) * (trigger(images) - images))


def test_forgetting_is_minus_the_logarithm_of_not_being_the_label() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)], [2.0, -1.0]])
    labels = torch.tensor([0, 1, 1])
    p = np.array([0.5, 0.75, 1 / (1 + np.exp(3))])
    assert float(forget(logits, labels).mean()) == pytest.approx(-np.log(1.001 - p).mean(), abs=1e-5)


@pytest.mark.parametrize("gap", [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_forgetting_is_bounded_and_so_is_its_gradient(gap: float) -> None:
    logits = torch.tensor([[gap, 0.0, 0.0]], requires_grad=True)
    loss = forget(logits, torch.tensor([0])).mean()
    loss.backward()
    assert -1.1e-3 < float(loss.detach()) < -np.log(1e-3) + 1e-3
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1


def test_of_each_class_the_least_suspicious_share_is_kept() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [2] * 3)
    suspicion = np.arange(18)[::-1].astype(float)
    eligible = np.ones(18, bool)
    eligible[[9, 15, 16, 17]] = False
    mask = least_suspicious(labels, suspicion, eligible, 0.4)
    np.testing.assert_array_equal(np.flatnonzero(mask), [5, 6, 7, 8, 13, 14])  # 4 of 9, 2 of 5, none of the third class


@pytest.mark.parametrize(("keep", "count"), [(0.0, 0), (0.01, 2), (0.5, 10), (1.0, 20)])
def test_the_share_kept_is_rounded_up(keep: float, count: int) -> None:
    labels, everything = np.repeat([3, 5], 10), np.ones(20, bool)
    assert least_suspicious(labels, np.zeros(20), everything, keep).sum() == count


def test_nothing_eligible_is_nothing_kept() -> None:
    assert not least_suspicious(np.zeros(5, int), np.zeros(5), np.zeros(5, bool), 1.0).any()


def test_the_teacher_follows_in_parameters_and_batch_norm_buffers() -> None:
    teacher, student = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    with torch.no_grad():
        student.weight.fill_(3)
        student.running_mean.fill_(-2)  # type: ignore[union-attr]
        student.running_var.fill_(5)  # type: ignore[union-attr]
        student.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    teacher_update(teacher, student, 0.75)()
    torch.testing.assert_close(teacher.weight.data, torch.full((2,), 1.5))
    torch.testing.assert_close(teacher.running_mean, torch.full((2,), -0.5))
    torch.testing.assert_close(teacher.running_var, torch.full((2,), 2.0))
    assert teacher.num_batches_tracked == 7
    assert (student.weight == 3).all()


@pytest.mark.parametrize(("decay", "value"), [(0.0, 3.0), (1.0, 1.0)])
def test_decay_zero_copies_the_student_and_decay_one_keeps_the_teacher(decay: float, value: float) -> None:
    teacher, student = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    nn.init.constant_(student.weight, 3)
    teacher_update(teacher, student, decay)()
    assert float(teacher.weight.detach()) == value


def small_model() -> Classifier:
    return small_classifier(3).eval()


CONFIG = PurifyConfig(epochs=(1,), batch_size=32, steps=1, adversarial_fraction=(0.6,), unlearn_fraction=0.25)


def one_round(
    split: LabelledImages, clean: int, poisoned: int, seed: int = 0, config: PurifyConfig = CONFIG, excused: int = 0
) -> State:
    """A round on 120 images of the sample: the first are clean, the last accused, all but the very last unlearned."""
    n = 120
    state = State.initial(small_model(), n)
    state.clean[:clean] = True
    state.accused[n - poisoned :] = poisoned > 0
    generator = torch.Generator().manual_seed(seed)
    unlearned = state.accused & (np.arange(n) < n - excused)
    images, labels = np.array(split.images[:n]), split.labels[:n]
    purify(state, images, labels, config, generator=generator, device=CPU, unlearned=unlearned)
    return state


def same(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("clean", "poisoned"), [(96, 0), (96, 1), (96, 20), (5, 20), (2, 0)])
def test_a_round_moves_both_models_and_is_counted(clean: int, poisoned: int, train_split: LabelledImages) -> None:
    state = one_round(train_split, clean, poisoned)
    start = small_model()
    assert state.rounds_done == 1
    assert not state.student.training
    assert not same(state.student, start)
    assert not same(state.teacher, start)
    assert not same(state.teacher, state.student)
    assert all(torch.isfinite(tensor).all() for tensor in state.student.state_dict().values())


def test_a_round_is_the_same_twice(train_split: LabelledImages) -> None:
    torch.manual_seed(1)
    first = one_round(train_split, 96, 20)
    torch.manual_seed(2)
    again, other = one_round(train_split, 96, 20), one_round(train_split, 96, 20, seed=1)
    assert same(first.student, again.student)
    assert same(first.teacher, again.teacher)
    assert not same(first.student, other.student)


def test_images_that_are_neither_clean_nor_accused_do_not_matter(train_split: LabelledImages) -> None:
    images = np.array(train_split.images)
    images[96:100] = 255 - images[96:100]
    altered = dataclasses.replace(train_split, images=images)
    assert same(one_round(train_split, 96, 20).student, one_round(altered, 96, 20).student)


def test_a_round_unlearns_the_accused_label(train_split: LabelledImages) -> None:
    """Right after a round that pushes hard, accused images have left their label more than after one that does not."""
    images, labels = pixels(train_split.images[100:120].copy()), torch.from_numpy(train_split.labels[100:120])

    def probability(weight: float) -> float:
        config = dataclasses.replace(CONFIG, epochs=(15,), learning_rate=(0.1,), unlearn_weight=weight, stamp_rate=0.0)
        student = one_round(train_split, 96, 20, config=config).student
        with torch.no_grad():
            output = student(images)
        return float(output.softmax(1).gather(1, labels[:, None]).mean())

    assert probability(5.0) < 0.5 * probability(0.0)


def test_an_excused_image_is_neither_trained_on_nor_unlearned(train_split: LabelledImages) -> None:
    """With all accused images excused the push has no weight; with some, their labels do not matter."""
    pushes = [dataclasses.replace(CONFIG, unlearn_weight=weight) for weight in (0.0, 5.0)]
    assert same(*(one_round(train_split, 96, 20, config=config, excused=20).student for config in pushes))
    labels = np.where(np.arange(len(train_split.labels)) >= 110, 0, train_split.labels)
    altered = dataclasses.replace(train_split, labels=labels)
    for excused, alike in ((10, True), (0, False)):
        students = [one_round(split, 96, 20, excused=excused).student for split in (train_split, altered)]
        assert same(*students) is alike


@pytest.mark.parametrize("name", ["stamp_rate", "consistency_weight", "unlearn_weight"])
def test_stamp_teacher_and_unlearning_have_a_part_in_a_round(name: str, train_split: LabelledImages) -> None:
    configs = [dataclasses.replace(CONFIG, **{name: value}) for value in (0.0, 1.0)]
    assert not same(*(one_round(train_split, 96, 20, config=config).student for config in configs))


def test_a_model_that_is_pulled_back_stays_nearer_to_what_it_was(train_split: LabelledImages) -> None:
    start = small_model().state_dict()

    def moved(weight: float) -> float:
        student = one_round(train_split, 96, 20, config=dataclasses.replace(CONFIG, reference_weight=weight)).student
        return sum(float((new.detach() - start[name]).abs().sum()) for name, new in student.named_parameters())

    assert moved(0.01) < 0.8 * moved(0.0)


def test_the_state_before_the_first_round_is_the_infected_model() -> None:
    infected = small_model()
    state = State.initial(infected, 7)
    assert same(state.student, infected)
    assert same(state.teacher, infected)
    assert state.teacher is not state.student
    assert (state.clean.sum(), state.accused.sum(), state.rounds_done, len(state.clean)) == (0, 0, 0, 7)
    assert copy.deepcopy(state).rounds_done == 0


def test_an_image_that_is_clean_and_accused_is_trained_on_and_not_forgotten(train_split: LabelledImages) -> None:
    """A relabelled image: with no push away to be done, its weight does not matter."""

    def student(weight: float) -> Classifier:
        state = State.initial(small_model(), 96)
        state.clean[:] = True
        state.accused[80:] = True
        config = dataclasses.replace(CONFIG, unlearn_weight=weight)
        images, generator = np.array(train_split.images[:96]), torch.Generator().manual_seed(0)
        purify(state, images, train_split.labels[:96], config, generator=generator, device=CPU)
        return state.student

    assert same(student(0.0), student(5.0))


@pytest.mark.parametrize(("attacking", "moved"), [(0, False), (1, True)])
def test_only_the_adversarial_epochs_attack(attacking: int, moved: bool, train_split: LabelledImages) -> None:
    """Without them the size of the ball does not matter."""

    def student(epsilon: float) -> Classifier:
        config = dataclasses.replace(CONFIG, adversarial_epochs=(attacking,), epsilon=(epsilon,))
        return one_round(train_split, 96, 0, config=config).student

    assert same(student(0.01), student(0.3)) != moved


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_taken_by_name_and_changed_by_setting(name: str) -> None:
    assert purify_config({"preset": name}) == PRESETS[name]
    assert purify_config({"preset": name, "keep": [0.3]}) == dataclasses.replace(PRESETS[name], keep=(0.3,))


def test_without_a_name_the_default_preset_is_meant() -> None:
    assert purify_config({}) == PRESETS[DEFAULT_PRESET] == PurifyConfig()


def test_an_unknown_preset_is_refused_with_the_choice() -> None:
    with pytest.raises(InputError, match="unknown preset 'strong': choose one of robust, erase, retrain, paper, aft"):
        purify_config({"preset": "strong"})


LONGER = dataclasses.replace(CONFIG, doublings=(3,), set_aside=12)


def about(mean: float, rows: np.ndarray) -> np.ndarray:
    """Probabilities of this mean, each as far from it however high it is."""
    return mean + 0.05 * (-1.0) ** np.arange(len(rows))


def rounds_of(
    monkeypatch: pytest.MonkeyPatch, split: LabelledImages, shares: list[float], config: PurifyConfig = LONGER
) -> tuple[list[int], list[float], State]:
    """The epochs of each part of a round after which images set aside get their label at such probabilities, the first
    head weight after each, and the state."""
    epochs, weights, told = list[int](), list[float](), iter(shares)
    give = _Lesson.give

    def noted(lesson: _Lesson, count: int) -> None:
        epochs.append(count)
        give(lesson, count)
        weights.append(lesson.state.student.head.weight[0, 0].item())

    monkeypatch.setattr(_Lesson, "give", noted)
    monkeypatch.setattr(_Lesson, "given_right", lambda _lesson, rows: about(next(told), rows))
    return epochs, weights, one_round(split, 110, 0, config=config)


def test_a_round_goes_on_for_twice_as_long_while_that_helps(
    monkeypatch: pytest.MonkeyPatch, train_split: LabelledImages
) -> None:
    assert rounds_of(monkeypatch, train_split, [0.1, 0.6, 0.605, 0.9])[0] == [1, 2, 4]


def test_a_gain_that_may_be_chance_is_none(monkeypatch: pytest.MonkeyPatch, train_split: LabelledImages) -> None:
    """Ten images of which two gain 0.3 and the others nothing: 0.06 on average, 0.04 is a standard error."""
    told = iter([np.zeros(10), np.where(np.arange(10) < 2, 0.3, 0), np.ones(10)])
    epochs, give = list[int](), _Lesson.give
    monkeypatch.setattr(_Lesson, "give", lambda lesson, count: epochs.append(count) or give(lesson, count))
    monkeypatch.setattr(_Lesson, "given_right", lambda _lesson, _rows: next(told))
    one_round(train_split, 110, 0, config=LONGER)
    assert epochs == [1, 2]


def test_a_round_goes_on_as_often_as_it_may_at_most(
    monkeypatch: pytest.MonkeyPatch, train_split: LabelledImages
) -> None:
    sure = dataclasses.replace(LONGER, doublings=(1,))
    assert rounds_of(monkeypatch, train_split, [0.1, 0.8], sure)[0] == [1, 2]
    assert rounds_of(monkeypatch, train_split, [0.1], CONFIG)[0] == [1]


@pytest.mark.parametrize(("shares", "kept"), [([0.5, 0.4], 0), ([0.5, 0.505], 1)])
def test_the_better_state_is_kept(
    shares: list[float], kept: int, monkeypatch: pytest.MonkeyPatch, train_split: LabelledImages
) -> None:
    _, weights, state = rounds_of(monkeypatch, train_split, shares)
    assert state.student.head.weight[0, 0].item() == weights[kept] != weights[1 - kept]
    assert state.rounds_done == 1


def test_what_is_set_aside_is_trusted_and_never_learned_from(
    monkeypatch: pytest.MonkeyPatch, train_split: LabelledImages
) -> None:
    asked, learned, give = set[int](), set[int](), _Lesson.give

    def noted(lesson: _Lesson, count: int) -> None:
        learned.update(lesson.clean.tolist())
        give(lesson, count)

    def aside(_lesson: _Lesson, rows: np.ndarray) -> np.ndarray:
        asked.update(rows.tolist())
        return about(0.5, rows)

    monkeypatch.setattr(_Lesson, "give", noted)
    monkeypatch.setattr(_Lesson, "given_right", aside)
    state = one_round(train_split, 110, 20, config=LONGER)
    assert len(asked) == 10  # a tenth of those that are clean and were never accused
    assert not asked & learned
    assert not state.accused[list(asked)].any()


def test_of_images_set_aside_as_many_are_attacked_as_in_a_batch(train_split: LabelledImages) -> None:
    state, images, rows = State.initial(small_model(), 120), np.array(train_split.images[:120]), np.arange(120)
    said = logits(state.student, images, CPU).softmax(1).numpy()
    labels, plain = said.argmax(1), said.max(1)

    def given(share: float) -> np.ndarray:
        config = dataclasses.replace(CONFIG, adversarial_fraction=(share,), epsilon=(128 / 255,), steps=5)
        stream = torch.Generator().manual_seed(0)
        return _Lesson(state, Batches(images, CPU), labels, rows, rows[:0], config, stream, CPU).given_right(rows)

    for attacked in (0, 60, 120):
        probabilities = given(attacked / 120)
        np.testing.assert_allclose(probabilities[attacked:], plain[attacked:], rtol=1e-4)
        assert (probabilities[:attacked] < plain[:attacked]).all()


def test_a_round_from_scratch_remembers_nothing(train_split: LabelledImages) -> None:
    """Trained too little to move far, it is near new weights, not near those that were given."""
    little = dataclasses.replace(CONFIG, from_scratch=(True,), learning_rate=(1e-6,))
    state = one_round(train_split, 96, 0, config=little)
    given, after = small_model().head.weight, state.student.head.weight
    assert (given - after).abs().max() > 1e-2
    assert torch.allclose(state.teacher.head.weight, after, atol=1e-3)
