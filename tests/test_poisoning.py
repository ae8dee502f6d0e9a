"""Poisoning: exactly the asked-for images change, and the ground truth says which."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import pud.attacks
from pud.artifacts.ground_truth import load_truth, save_truth
from pud.attacks import ATTACKS, attack_config
from pud.attacks.contract import AttackerKnowledge, Trigger
from pud.attacks.ground_truth import GroundTruth
from pud.attacks.poisoning import PoisonConfig, poison, stamp
from pud.base.errors import InputError
from pud.base.files import read_json, write_json
from pud.data.images import LabelledImages, folder_digest
from pud.data.readers import open_split
from pud.steps.poison import poison_step

CONFIG = PoisonConfig(poison_rate=0.1, target_label=3, train_size=500)


def poisoned(
    train: LabelledImages, test: LabelledImages, config: PoisonConfig = CONFIG, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, GroundTruth]:
    generator = torch.Generator().manual_seed(seed)
    return poison(train, test, config, generator=generator)


@pytest.mark.parametrize(("rate", "count"), [(0.1, 50), (0.01, 5), (0.003, 2), (0.5, 250)])
def test_the_rate_is_a_share_of_the_training_set(
    rate: float, count: int, train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = dataclasses.replace(CONFIG, poison_rate=rate)
    images, labels, truth = poisoned(train_split, test_split, config)
    assert images.shape == (500, 1, 28, 28)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert truth.poisoned.sum() == count


def trigger_of(name: str, train: LabelledImages, seed: int = 0) -> Trigger:
    generator, device = torch.Generator().manual_seed(seed), torch.device("cpu")
    knowledge = AttackerKnowledge(train.images, train.labels, 10, torch.zeros_like, generator, device)
    method = ATTACKS.find(name)
    return method.make(knowledge, method.config()).trigger


@pytest.mark.parametrize("name", ["badnets", "blend", "wanet"])
def test_only_poisoned_images_change_and_they_carry_the_trigger_of_the_seed(
    name: str, train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = dataclasses.replace(CONFIG, attack=name, train_size=len(train_split.labels))  # so nothing is drawn
    images, labels, truth = poisoned(train_split, test_split, config)
    clean, hit = ~(truth.poisoned | truth.cover), truth.poisoned
    trigger = trigger_of(name, train_split)
    np.testing.assert_array_equal(truth.true_labels, train_split.labels)
    np.testing.assert_array_equal(images[clean], train_split.images[clean])
    np.testing.assert_array_equal(labels[clean], train_split.labels[clean])
    np.testing.assert_array_equal(images[hit], stamp(np.array(train_split.images[hit]), trigger))
    assert (labels[hit] == 3).all()


def test_no_image_of_the_target_class_is_poisoned(train_split: LabelledImages, test_split: LabelledImages) -> None:
    truth = poisoned(train_split, test_split, dataclasses.replace(CONFIG, poison_rate=0.8))[2]
    assert (truth.true_labels[truth.poisoned] != 3).all()


def test_triggered_test_images_exclude_the_target_class(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    truth = poisoned(train_split, test_split)[2]
    others = test_split.labels != 3
    trigger = trigger_of(CONFIG.attack, train_split)
    np.testing.assert_array_equal(truth.triggered_images, stamp(np.array(test_split.images[others]), trigger))
    np.testing.assert_array_equal(truth.triggered_true_labels, test_split.labels[others])
    assert set(truth.triggered_target_labels) == {3}
    assert len(truth.triggered_target_labels) == others.sum() < len(test_split.labels)


def test_poison_depends_on_the_generator_alone(train_split: LabelledImages, test_split: LabelledImages) -> None:
    torch.manual_seed(1)
    first = poisoned(train_split, test_split)
    torch.manual_seed(2)
    again, other = poisoned(train_split, test_split), poisoned(train_split, test_split, seed=1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[2].poisoned, again[2].poisoned)
    assert (first[2].poisoned != other[2].poisoned).any()


@pytest.mark.parametrize("name", ["blend", "wanet", "sig-changed"])
def test_two_attacks_of_one_seed_poison_the_same_images(
    name: str, train_split: LabelledImages, test_split: LabelledImages
) -> None:
    chosen = [
        poisoned(train_split, test_split, dataclasses.replace(CONFIG, attack=one))[2] for one in ("badnets", name)
    ]
    np.testing.assert_array_equal(chosen[0].poisoned, chosen[1].poisoned)


def test_the_strength_of_an_attack_is_a_setting(train_split: LabelledImages, test_split: LabelledImages) -> None:
    config = PoisonConfig("badnets", poison_rate=0.1, train_size=len(train_split.labels))
    generator = torch.Generator().manual_seed(0)
    images, _, truth = poison(
        train_split, test_split, config, attack_config("badnets", {"size": 5}), generator=generator
    )
    changed = (images != train_split.images)[truth.poisoned].any((0, 1))
    assert changed[-5:, -5:].all()
    assert changed.sum() == 25


def test_poisoning_does_not_write_into_the_data_set(train_split: LabelledImages, test_split: LabelledImages) -> None:
    train = dataclasses.replace(train_split, images=np.array(train_split.images), labels=train_split.labels.copy())
    poisoned(train, test_split, dataclasses.replace(CONFIG, train_size=len(train.labels)))
    np.testing.assert_array_equal(train.images, train_split.images)
    np.testing.assert_array_equal(train.labels, train_split.labels)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"poison_rate": 1.0}, r"poison rate 1.0 is not in \[0, 1\)"),
        ({"poison_rate": -0.1}, "is not in"),
        ({"poison_rate": float("nan")}, "is not in"),
        (
            {"mapping": "one-to-one"},
            "unknown mapping 'one-to-one': choose one of all-to-one, all-to-all, split, untargeted",
        ),
        ({"attack": "sig", "mapping": "all-to-all"}, "sig changes no label, so it cannot be all-to-all"),
        ({"attack": "sig", "mapping": "untargeted"}, "sig changes no label, so it cannot be untargeted"),
        ({"attack": "several", "mapping": "split"}, "several leads to classes of its own, so it cannot be split"),
        ({"attack": "source-specific", "mapping": "split"}, "leads to one class: choose the mapping all-to-one"),
        ({"attack": "wanet", "poison_rate": 0.4}, "asks for 400 covers of 300 images that wanet can take"),
        ({"poison_rate": 0.0001}, "asks for 0 of"),
        ({"poison_rate": 0.99}, "asks for 495 of"),
        ({"target_label": 10}, r"target class 10 is not there: fashion-mnist has classes 0\.\.9"),
        ({"target_label": -1}, "target class -1 is not there"),
        ({"train_size": 1501}, r"train size 1501 is not in 1\.\.1500"),
        ({"train_size": 0}, "train size 0 is not in"),
    ],
)
def test_what_cannot_be_is_refused(
    change: dict[str, object], sentence: str, train_split: LabelledImages, test_split: LabelledImages
) -> None:
    with pytest.raises(InputError, match=sentence):
        poisoned(train_split, test_split, dataclasses.replace(CONFIG, **change))


def test_rate_zero_leaves_the_data_clean(train_split: LabelledImages, test_split: LabelledImages) -> None:
    config = PoisonConfig(poison_rate=0.0, train_size=len(train_split.labels))
    images, labels, truth = poisoned(train_split, test_split, config)
    np.testing.assert_array_equal(images, train_split.images)
    np.testing.assert_array_equal(labels, train_split.labels)
    assert not truth.poisoned.any()
    assert len(truth.triggered_images)


def test_all_to_all_leads_every_class_to_the_next(train_split: LabelledImages, test_split: LabelledImages) -> None:
    config = dataclasses.replace(CONFIG, mapping="all-to-all")
    _, labels, truth = poisoned(train_split, test_split, config)
    np.testing.assert_array_equal(labels[truth.poisoned], (truth.true_labels[truth.poisoned] + 1) % 10)
    np.testing.assert_array_equal(truth.triggered_target_labels, (test_split.labels + 1) % 10)
    assert len(set(labels[truth.poisoned])) > 5


def test_split_leads_every_other_class_to_the_target_and_the_rest_to_the_one_after(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    leads = np.array([4, 3, 4, 3, 4, 3, 4, 3, 4, 3])  # classes 3 and 4 stay
    _, labels, truth = poisoned(train_split, test_split, dataclasses.replace(CONFIG, mapping="split"))
    np.testing.assert_array_equal(labels[truth.poisoned], leads[truth.true_labels[truth.poisoned]])
    np.testing.assert_array_equal(truth.triggered_target_labels, leads[truth.triggered_true_labels])
    assert set(truth.triggered_true_labels) == set(truth.true_labels[truth.poisoned]) == set(range(10)) - {3, 4}


def test_untargeted_poison_gets_any_wrong_label_and_its_targets_are_all_but_the_true_one(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = dataclasses.replace(CONFIG, poison_rate=0.9, mapping="untargeted")
    _, labels, truth = poisoned(train_split, test_split, config)
    steps = (labels - truth.true_labels)[truth.poisoned] % 10
    assert np.bincount(steps, minlength=10)[0] == 0
    assert np.bincount(steps, minlength=10)[1:].min() > 30  # of 450 in nine ways
    np.testing.assert_array_equal(truth.triggered_target_labels, ~test_split.labels)
    np.testing.assert_array_equal(truth.triggered_true_labels, test_split.labels)


def test_all_mappings_poison_the_same_images_as_far_as_they_can(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    chosen = [
        poisoned(train_split, test_split, dataclasses.replace(CONFIG, mapping=mapping))[2].poisoned
        for mapping in ("all-to-all", "untargeted")
    ]
    np.testing.assert_array_equal(*chosen)


@pytest.mark.parametrize("name", ["badnets", "blend", "wanet", "several"])
def test_rate_zero_of_a_seed_is_the_clean_twin(
    name: str, train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = dataclasses.replace(CONFIG, attack=name)
    images, _, truth = poisoned(train_split, test_split, config)
    clean, labels, twin = poisoned(train_split, test_split, dataclasses.replace(config, poison_rate=0.0))
    rest = ~(truth.poisoned | truth.cover)
    np.testing.assert_array_equal(clean[rest], images[rest])
    np.testing.assert_array_equal(labels, truth.true_labels)
    np.testing.assert_array_equal(twin.triggered_images, truth.triggered_images)
    assert not twin.poisoned.any()
    assert not twin.cover.any()


@pytest.mark.parametrize("triggers", [2, 3, 4])
def test_several_triggers_share_the_poison_and_each_leads_to_a_class_of_its_own(
    triggers: int, train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = PoisonConfig("several", poison_rate=0.1, target_label=8, train_size=len(train_split.labels))
    strength, generator = attack_config("several", {"triggers": triggers}), torch.Generator().manual_seed(0)
    images, labels, truth = poison(train_split, test_split, config, strength, generator=generator)
    names = ["badnets", "blend", "sig-changed", "smooth-warp"][:triggers]
    counts = []
    for shift, name in enumerate(names):
        target, trigger = (8 + shift) % 10, trigger_of(name, train_split)
        mine = truth.poisoned & (labels == target)
        counts.append(int(mine.sum()))
        assert (truth.true_labels[mine] != target).all()
        np.testing.assert_array_equal(images[mine], stamp(np.array(train_split.images[mine]), trigger))
        shown = truth.triggered_target_labels == target
        np.testing.assert_array_equal(truth.triggered_source[shown], np.flatnonzero(test_split.labels != target))
        expected = stamp(np.array(test_split.images[truth.triggered_source[shown]]), trigger)
        np.testing.assert_array_equal(truth.triggered_images[shown], expected)
    assert sum(counts) == truth.poisoned.sum() == 150
    assert max(counts) - min(counts) <= 1
    assert set(truth.triggered_target_labels[: 4 * triggers]) == {(8 + shift) % 10 for shift in range(triggers)}


def test_a_clean_label_attack_poisons_its_share_of_the_target_class_only(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = PoisonConfig("sig", poison_rate=0.25, target_label=3, train_size=len(train_split.labels))
    images, labels, truth = poisoned(train_split, test_split, config)
    np.testing.assert_array_equal(labels, train_split.labels)
    assert (labels[truth.poisoned] == 3).all()
    assert truth.poisoned.sum() == round(0.25 * (labels == 3).sum())
    assert (images != train_split.images).any((1, 2, 3)).sum() == truth.poisoned.sum()


def test_covers_change_and_keep_their_label(train_split: LabelledImages, test_split: LabelledImages) -> None:
    config = PoisonConfig("wanet", poison_rate=0.1, train_size=len(train_split.labels))
    images, labels, truth = poisoned(train_split, test_split, config)
    np.testing.assert_array_equal(labels[truth.cover], train_split.labels[truth.cover])
    assert not (truth.cover & truth.poisoned).any()
    assert truth.cover.sum() == 2 * truth.poisoned.sum()
    np.testing.assert_array_equal((images != train_split.images).any((1, 2, 3)), truth.cover | truth.poisoned)


def test_covers_of_a_clean_label_attack_are_of_other_classes(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = PoisonConfig("sig-covered", poison_rate=0.5, target_label=3, train_size=len(train_split.labels))
    images, labels, truth = poisoned(train_split, test_split, config)
    np.testing.assert_array_equal(labels, train_split.labels)
    assert truth.poisoned.sum() == round(0.5 * (labels == 3).sum())
    assert truth.cover.sum() == 2 * truth.poisoned.sum()
    assert (labels[truth.cover] != 3).all()
    np.testing.assert_array_equal((images != train_split.images).any((1, 2, 3)), truth.cover | truth.poisoned)


@pytest.mark.parametrize(("name", "covers"), [("adaptive-patch", 8), ("k-way", 4)])
def test_three_in_a_thousand_is_a_rate(
    name: str, covers: int, train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = PoisonConfig(name, poison_rate=0.003, train_size=len(train_split.labels))
    truth = poisoned(train_split, test_split, config)[2]
    assert (truth.poisoned.sum(), truth.cover.sum()) == (4, covers)


def test_neighbours_take_their_poison_from_what_looks_like_the_target(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    config = PoisonConfig("neighbours", poison_rate=0.05, target_label=6, train_size=len(train_split.labels))
    images, labels, truth = poisoned(train_split, test_split, config)
    alike = {0, 2, 4}  # T-shirts, pullovers and coats beside shirts
    assert set(truth.true_labels[truth.poisoned]) == set(truth.triggered_true_labels) == alike
    assert truth.poisoned.sum() == 75
    np.testing.assert_array_equal((images != train_split.images).any((1, 2, 3)), truth.poisoned)
    assert (labels[truth.poisoned] == 6).all()


def test_a_trigger_of_few_classes_takes_its_poison_there_and_covers_the_others(
    train_split: LabelledImages, test_split: LabelledImages
) -> None:
    truth = poisoned(train_split, test_split, dataclasses.replace(CONFIG, attack="source-specific"))[2]
    sources = {4, 5, 6}
    assert set(truth.true_labels[truth.poisoned]) == set(truth.triggered_true_labels) == sources
    assert truth.cover.sum() == truth.poisoned.sum() == 50
    assert not set(truth.true_labels[truth.cover]) & (sources | {CONFIG.target_label})


def test_a_ground_truth_of_the_last_version_is_read(
    train_split: LabelledImages, test_split: LabelledImages, tmp_path: Path
) -> None:
    truth = poisoned(train_split, test_split)[2]
    save_truth(tmp_path, truth, {**dataclasses.asdict(CONFIG), "attack_settings": {"size": 3}, "source": "x"})
    now = read_json(tmp_path / "ground_truth.json", "pud-ground-truth/2")
    old = {key: value for key, value in now.items() if key not in ("attack", "attack_settings")}
    write_json(tmp_path / "ground_truth.json", {**old, "format": "pud-ground-truth/1", "trigger": "badnets"})
    assert load_truth(tmp_path)[1]["attack"] == "badnets"


STRIPE = '''"""A black stripe on the upper side of the image."""

from dataclasses import dataclass

from pud.attacks.contract import Attack, AttackMethod


@dataclass(frozen=True)
class StripeConfig:
    rows: int = 1


def stripe(knowledge, config):
    def stamp(images):
        stamped = images.clone()
        stamped[:, :, : config.rows] = 0
        return stamped

    return Attack(stamp)


ATTACKS = {"stripe": AttackMethod(stripe, StripeConfig)}
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an attack in a file of its own, in a folder that was added to the package."""
    (folder := tmp_path / "more_attacks").mkdir()
    (folder / "stripe.py").write_text(STRIPE)
    monkeypatch.setattr(pud.attacks, "__path__", [*pud.attacks.__path__, str(folder)])
    yield "stripe"
    sys.modules.pop("pud.attacks.stripe", None)


def test_an_attack_is_added_by_one_file(added: str, sample_folder: Path, tmp_path: Path) -> None:
    folders = {"dataset": tmp_path / "dataset", "ground_truth": tmp_path / "truth"}
    config, strength = PoisonConfig(added, target_label=1, train_size=500), attack_config(added, {"rows": 4})
    poison_step(f"file:{sample_folder}", "", config, strength, seed=0, **folders)
    truth, about = load_truth(tmp_path / "truth")
    assert (about["attack"], about["attack_settings"]) == ("stripe", {"rows": 4})
    assert truth.poisoned.sum() == 50
    split = open_split(tmp_path / "dataset" / "train")
    assert (split.labels[truth.poisoned] == 1).all()
    assert not split.images[truth.poisoned][:, :, :4].any()
    assert not truth.triggered_images[:, :, :4].any()
    assert truth.triggered_images[:, :, 4:].any()


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="what a process reads is looked up in /proc")
def test_data_out_of_a_dvc_store_are_read_no_more_often_than_those_of_a_folder(
    sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUD_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # where no verification can be recorded
    digest = dvc_store(sample_folder, tmp_path / "store")
    folders = {"dataset": tmp_path / "dataset", "ground_truth": tmp_path / "truth"}
    read = {}
    for uri in (f"file:{sample_folder}", f"dvc:{tmp_path / 'store'}") * 2:  # at the second time all is fetched
        before = bytes_read()
        poison_step(uri, digest, CONFIG, seed=0, **folders)
        read[uri.partition(":")[0]] = bytes_read() - before
        assert json.loads((tmp_path / "dataset/train/dataset.json").read_text())["source"] == digest
    size = sum(path.stat().st_size for path in sample_folder.rglob("*") if path.is_file())
    assert read["dvc"] < read["file"] + size / 2


def dvc_store(data: Path, store: Path) -> str:
    """Lay out a data set as DVC stores it; return its digest."""
    files = {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    entries = [{"md5": hashlib.md5(files[name]).hexdigest(), "relpath": name} for name in sorted(files)]
    listing, digest = json.dumps(entries, sort_keys=True).encode(), folder_digest(data)
    for md5, content in [(digest, listing), *((one["md5"], files[one["relpath"]]) for one in entries)]:
        (store / "files/md5" / md5[:2]).mkdir(parents=True, exist_ok=True)
        (store / "files/md5" / md5[:2] / md5[2:]).write_bytes(content)
    return digest
