"""Data sets on disk: what is written is what is opened, and anything wrong with it is said in a sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pud.data.readers
from pud.base.errors import InputError
from pud.base.files import sha256
from pud.data.images import folder_digest, pixels, to_uint8
from pud.data.readers import open_split, open_training_split
from pud.data.readers.npy import write_split
from pud.platform.fetch import CLASSES


def written(folder: Path, labels: np.ndarray | None = None) -> Path:
    """A split of four images, in three classes unless labels say otherwise."""
    images = np.arange(4 * 3 * 5 * 6, dtype=np.uint8).reshape(4, 3, 5, 6)
    labels = np.array([0, 1, 2, 1]) if labels is None else labels
    write_split(folder, images, labels, classes=["a", "b", "c"], name="four", source="made here")
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_split_survives_the_round_trip(tmp_path: Path) -> None:
    split = open_split(written(tmp_path / "train"))
    np.testing.assert_array_equal(split.images, np.arange(360, dtype=np.uint8).reshape(4, 3, 5, 6))
    np.testing.assert_array_equal(split.labels, [0, 1, 2, 1])
    assert (split.classes, split.name) == (("a", "b", "c"), "four")
    assert split.digest == sha256(tmp_path / "train" / "images.npy")


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path / "one")
    written(tmp_path / "two")
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")


def test_the_folder_digest_sees_content_and_names(tmp_path: Path) -> None:
    folder = written(tmp_path / "train")
    first = folder_digest(folder)
    (folder / "labels.npy").rename(folder / "other.npy")
    renamed = folder_digest(folder)
    (folder / "other.npy").write_bytes(b"other")
    assert len({first, renamed, folder_digest(folder)}) == 3
    assert first.endswith(".dir")


def test_the_folder_digest_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        folder_digest(tmp_path / "nowhere")


def test_images_are_a_read_only_memory_map(tmp_path: Path) -> None:
    images = open_split(written(tmp_path / "train")).images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_the_sample_is_fashion_mnist(sample_folder: Path) -> None:
    for name, size in (("train", 1500), ("test", 400)):
        split = open_split(sample_folder / name)
        assert split.images.shape == (size, 1, 28, 28)
        assert np.bincount(split.labels, minlength=10).min() > 0
        assert split.classes == tuple(CLASSES)


def remove_images(folder: Path) -> None:
    (folder / "images.npy").unlink()


def remove_description(folder: Path) -> None:
    (folder / "dataset.json").unlink()


def flip_a_byte(folder: Path) -> None:
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)


def truncate(folder: Path) -> None:
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:60])
    sign(folder)


def pickle_the_labels(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([0, 1, 2, 1], dtype=object), allow_pickle=True)
    sign(folder)


def widen_the_labels(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([0, 1, 2, 1], np.int32))
    sign(folder)


def lose_a_label(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([0, 1, 2]))
    sign(folder)


def spoil_the_description(folder: Path) -> None:
    (folder / "dataset.json").write_text("{")


def another_format(folder: Path) -> None:
    edit(folder / "dataset.json", format="pud-dataset/99")


def sign(folder: Path) -> None:
    digests = {file: sha256(folder / file) for file in ("images.npy", "labels.npy")}
    edit(folder / "dataset.json", sha256=digests)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_images, "images.npy is missing"),
        (remove_description, "dataset.json is missing"),
        (flip_a_byte, "does not match its digest"),
        (truncate, "images.npy is corrupt"),
        (pickle_the_labels, "not a plain .npy array"),
        (widen_the_labels, "int64 of 1 dimensions is needed"),
        (lose_a_label, "4 images and 3 labels"),
        (spoil_the_description, "cannot be read as JSON"),
        (another_format, "is not a pud-dataset/1 file"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], None], sentence: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "train")
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        open_split(folder)


@pytest.mark.parametrize("key", ["classes", "name", "sha256"])
def test_a_description_that_lacks_something_is_refused(key: str, tmp_path: Path) -> None:
    path = written(tmp_path / "train") / "dataset.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    with pytest.raises(InputError, match=key):
        open_split(path.parent)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_outside_the_classes_are_refused(wrong: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside the 3 classes"):
        open_split(written(tmp_path / "train", np.array([0, 1, wrong, 1])))


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    written(tmp_path / "train", np.array([0, 2, 2, 0]))
    assert open_split(tmp_path / "train").classes == ("a", "b", "c")  # a small test split may lack one
    with pytest.raises(InputError, match=r"no image of class 1 \(b\)"):
        open_training_split(tmp_path)


def test_a_single_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    write_split(tmp_path / "train", np.zeros((4, 1, 5, 5)), np.zeros(4), classes=["a"], name="x", source="here")
    with pytest.raises(InputError, match="has one class"):
        open_training_split(tmp_path)


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    edit(written(tmp_path / "train") / "dataset.json", classes=["cat", "dog", "cat"])
    with pytest.raises(InputError, match="names more than one class 'cat'"):
        open_split(tmp_path / "train")


def test_pixels_and_back_lose_nothing() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(2, 2, 8, 8)
    tensor = pixels(images)
    assert (tensor.dtype, tensor.min(), tensor.max()) == (torch.float32, 0, 1)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(to_uint8(tensor), images)


def test_pixels_do_not_share_memory_with_the_images() -> None:
    images = np.zeros((1, 1, 2, 2), np.uint8)
    pixels(images).fill_(1)
    assert not images.any()


def test_pixels_of_a_memory_map_do_not_warn(tmp_path: Path) -> None:
    images = open_split(written(tmp_path / "train")).images
    torch.set_warn_always(True)
    try:
        assert pixels(images[:2]).shape == (2, 3, 5, 6)
    finally:
        torch.set_warn_always(False)


def test_one_file_adds_a_form_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers" / "text_digits.py").write_text(
        """
import numpy as np
from pud.base.files import sha256
from pud.data.images import LabelledImages

class Text:
    def reads(self, folder):
        return (folder / "digits.txt").exists()

    def open(self, folder):
        values = np.loadtxt(folder / "digits.txt", dtype=np.int64)
        images = values[:, 1:].astype(np.uint8).reshape(-1, 1, 2, 2)
        return LabelledImages(images, values[:, 0], ("no", "yes"), "text", sha256(folder / "digits.txt"))

READERS = {"text": Text()}
"""
    )
    monkeypatch.setattr(pud.data.readers, "__path__", [*pud.data.readers.__path__, str(tmp_path / "readers")])
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train/digits.txt").write_text("0 1 2 3 4\n1 255 0 0 0\n")
    split = open_training_split(tmp_path / "data")
    assert split.images.tolist() == [[[[1, 2], [3, 4]]], [[[255, 0], [0, 0]]]]
    assert split.classes == ("no", "yes")
    with pytest.raises(InputError, match=r"dataset\.json is missing: .* forms npy, text"):
        open_split(tmp_path / "data/test")
