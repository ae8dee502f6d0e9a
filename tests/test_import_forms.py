"""The forms in which pictures are published and kept: files in the real formats, read back to the same pixels."""

import csv
import gzip
import hashlib
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from test_import import imported, noise, save, table_of

from pud.base.errors import InputError
from pud.data.images import LabelledImages
from pud.exchange.importing import summary
from pud.exchange.pictures import FORMS, cifar, form_of, idx
from pud.exchange.pictures.cifar import read_pickled

COLOUR = np.stack([noise(number).transpose(2, 0, 1) for number in range(8)])  # uint8 (8, 3, 32, 32)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def said(content: dict[str, Any]) -> str:
    return "\n".join(content["notes"])


def test_every_form_is_known_by_its_file() -> None:
    assert FORMS.names() == [
        "arrays",
        "cifar",
        "folder",
        "gtsrb",
        "huggingface",
        "idx",
        "imagenet",
        "table",
        "tiny-imagenet",
    ]


def test_a_form_that_the_source_has_not_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "in/cat/1.png", noise(1))
    for form in FORMS.names():
        if form != "folder":
            with pytest.raises(InputError, match=f"is not of the form {form}"):
                imported(tmp_path / "in", form=form)
    with pytest.raises(InputError, match="unknown form of pictures 'lmdb'"):
        imported(tmp_path / "in", form="lmdb")


# tables


def table(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    for number in range(6):
        save(folder / f"images/{number}.png", noise(number))
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


ROWS = "".join(f"images/{number}.png,{('cat', 'dog')[number % 2]}\n" for number in range(6))


@pytest.mark.parametrize("head", ["path,label\n", "File_Name,Class\n", "\ufeffimage,category\n"])
def test_a_table_of_path_and_label_is_read(tmp_path: Path, head: str) -> None:
    content, split = imported(table(tmp_path / "in", head + ROWS))
    assert (content["form"], split.classes, split.labels.tolist()) == ("table", ("cat", "dog"), [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(split.images, COLOUR[:6])
    assert table_of(tmp_path / "in")["name"].tolist() == [f"images/{number}.png" for number in range(6)]


def test_a_table_may_be_given_itself_with_other_separators_and_a_column_of_splits(tmp_path: Path) -> None:
    rows = "".join(f"{number % 2};images/{number}.png;{'test' if number > 3 else 'train'}\n" for number in range(6))
    table(tmp_path / "in", f"label;path;split\n{rows}")
    content, split = imported(tmp_path / "in/labels.csv")
    assert split.classes == ("0", "1")
    assert [content["splits"][name]["counts"] for name in ("train", "test")] == [[2, 2], [1, 1]]


def test_a_table_in_parquet_is_read(tmp_path: Path) -> None:
    table(tmp_path / "in", "", "unused.txt")
    columns = {"path": [f"images/{number}.png" for number in range(6)], "label": [0, 1, 2, 0, 1, 2]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "in/all.parquet")
    content, split = imported(tmp_path / "in")
    assert (content["form"], split.labels.tolist()) == ("table", columns["label"])


def test_a_table_in_latin_1_is_read_and_that_is_said(tmp_path: Path) -> None:
    content, split = imported(table(tmp_path / "in", ("path,label\n" + ROWS.replace("dog", "Köter")).encode("latin-1")))
    assert split.classes == ("Köter", "cat")
    assert "'labels.csv' is not in UTF-8: it was read as Latin-1" in said(content)


HOSTILE = ("../outside.png", "/etc/hostname", "images/../../outside.png", "link.png", "links/outside.png", "a\0b.png")


def test_a_table_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = table(tmp_path / "in", "")
    save(tmp_path / "outside.png", noise(77))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "links").symlink_to(tmp_path)
    rows = "".join(f"{name},dog\n" for name in (*HOSTILE, "x" * 300, '"line\nbreak.png"', "<b>.png"))
    (folder / "labels.csv").write_text("path,label\n" + ROWS + rows)
    with pytest.raises(InputError, match=r"9 pictures cannot be used|pictures cannot be used"):
        imported(folder)
    content, split = imported(folder, skipped_limit=0.9)
    assert len(split.labels) == 6
    reasons = {one["name"]: one["reason"] for one in content["skipped"]}
    assert {reasons[name] for name in HOSTILE[:3] + HOSTILE[4:5]} == {"leads out of the folder"}
    assert reasons["link.png"] == "is a link out of the folder"
    assert reasons["a\0b.png"] == "its name is not one of a file"
    assert reasons["x" * 300] == "File name too long"
    assert reasons["line\nbreak.png"] == reasons["<b>.png"] == "is missing"
    assert "\nbreak" not in summary(content)


def test_missing_files_are_skipped_up_to_the_share_and_refused_beyond(tmp_path: Path) -> None:
    folder = table(tmp_path / "in", "path,label\n" + ROWS + "images/lost.png,cat\n")
    assert imported(folder, skipped_limit=0.2)[0]["skipped"] == [{"name": "images/lost.png", "reason": "is missing"}]
    with pytest.raises(InputError, match=r"'images/lost\.png' is missing"):
        imported(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no column of paths"),
        ("where,label\na,b\n", "has no column of paths, only 'where', 'label': name one of them 'path'"),
        ("path,what\na,b\n", "has no column of labels"),
        ("path,label\na,b,c\n", "has 3 fields in row 2 and 2 in the first"),
        ("path,label\nimages/0.png,\n", "has 1 rows without a label"),
        ("path,label\nimages/0.png,-1\nimages/1.png,0\nimages/2.png,1\n", r"1 train labels outside of its 2 classes"),
        ("path,label\nimages/0.png,1\nimages/1.png,2\n", "no training picture is left of class '0'"),
        ("path,label\n", "holds no training picture"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        imported(table(tmp_path / "in", text))


def test_labels_outside_of_the_named_classes_are_refused(tmp_path: Path) -> None:
    folder = table(tmp_path / "in", "path,label\n" + ROWS)
    (folder / "classes.json").write_text('["dog", "emu"]')
    with pytest.raises(InputError, match=r"3 train labels outside of its 2 classes, of 'images/0.png'"):
        imported(folder)
    (folder / "classes.json").write_text('["dog", "cat"]')
    assert imported(folder)[1].labels.tolist() == [1, 0, 1, 0, 1, 0]


def test_a_table_beside_classes_counts_only_with_its_columns(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "in" / ("cat", "dog")[number % 2] / f"{number}.png", noise(number))
    (tmp_path / "in/notes.csv").write_text("weather,comment\nrain,none\n")
    np.save(tmp_path / "in/cat/features.npy", COLOUR)
    assert form_of(tmp_path / "in") == "folder"
    (tmp_path / "in/notes.csv").write_text("path,label\ncat/0.png,cat\ndog/1.png,dog\n")
    assert form_of(tmp_path / "in") == "table"


# arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16, np.float32])
@pytest.mark.parametrize("channels_first", [True, False])
def test_a_pair_of_arrays_is_read_whatever_the_order_of_axes(tmp_path: Path, dtype: Any, channels_first: bool) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in/images.npy", COLOUR if channels_first else COLOUR.transpose(0, 2, 3, 1))
    np.save(tmp_path / "in/labels.npy", LABELS.astype(dtype))
    for source in (tmp_path / "in", tmp_path / "in/images.npy"):
        content, split = imported(source) if source.is_dir() else imported_from(source, tmp_path)
        np.testing.assert_array_equal(split.images, COLOUR)
        assert (content["form"], split.labels.tolist()) == ("arrays", LABELS.tolist())


def imported_from(source: Path, folder: Path) -> tuple[dict[str, Any], LabelledImages]:
    from pud.data.readers import open_split
    from pud.exchange.importing import ImportConfig, import_pictures

    content = import_pictures(source, folder / "other", ImportConfig(), seed=0)
    return content, open_split(folder / "other/train")


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_an_archive_of_arrays_is_read_with_its_splits(tmp_path: Path, save_npz: Any) -> None:
    grey = COLOUR[:, 0]
    arrays = {
        "x_train": grey,
        "y_train": LABELS,
        "x_test": grey[:3],
        "y_test": LABELS[:3, None],
        "note": np.array("text"),
    }
    save_npz(tmp_path / "digits.npz", **arrays)
    content, split = imported(tmp_path / "digits.npz")
    np.testing.assert_array_equal(split.images[:, 0], grey)
    assert content["splits"]["test"]["counts"] == [1, 1, 1]


def test_the_folder_that_this_project_reads_is_read_too(
    sample_folder: Path, train_split: LabelledImages, tmp_path: Path
) -> None:
    (tmp_path / "in").symlink_to(sample_folder)
    content, split = imported(tmp_path / "in")
    np.testing.assert_array_equal(split.images, train_split.images)
    assert split.classes == train_split.classes
    assert sum(content["splits"]["test"]["counts"]) == 400


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255)])
def test_the_range_of_floats_is_found_and_said(tmp_path: Path, low: int, high: int) -> None:
    values = low + COLOUR / 255 * (high - low)
    np.savez(tmp_path / "floats.npz", images=values.astype(np.float32), labels=LABELS)
    content, split = imported(tmp_path / "floats.npz")
    np.testing.assert_array_equal(split.images, COLOUR)
    assert f"{low} was taken for black and {high} for white" in said(content)


def test_the_range_of_floats_is_stated_where_it_is_unusual(tmp_path: Path) -> None:
    values = (COLOUR / 255 - 0.5) / 0.25
    np.savez(tmp_path / "floats.npz", images=values, labels=LABELS)
    with pytest.raises(InputError, match=r"values from -2 to 2, of no usual range: state black and white"):
        imported(tmp_path / "floats.npz")
    np.testing.assert_array_equal(imported(tmp_path / "floats.npz", value_range=[-2, 2])[1].images, COLOUR)
    with pytest.raises(InputError, match="give two numbers, of black and of white"):
        imported(tmp_path / "floats.npz", value_range=[2, -2])


def test_pictures_that_are_not_finite_are_skipped(tmp_path: Path) -> None:
    values = COLOUR / 255
    values[3, 0, 0, 0] = np.nan
    np.savez(tmp_path / "floats.npz", images=values, labels=LABELS)
    content, _ = imported(tmp_path / "floats.npz", skipped_limit=0.2)
    assert content["skipped"] == [{"name": "floats/images/00003", "reason": "values that are not finite"}]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"images": COLOUR}, "one array .* of pictures and one"),
        ({"images": COLOUR, "labels": LABELS[:5]}, "8 pictures and 5 labels"),
        ({"images": COLOUR, "labels": LABELS + 0.5}, "are not whole numbers"),
        ({"images": COLOUR, "labels": LABELS - 1}, "3 train labels outside of its 2 classes"),
        ({"images": COLOUR, "labels": LABELS * 2}, "no training picture is left of class '1', '3'"),
        ({"images": COLOUR[:, :2], "labels": LABELS}, "in which none may count the channels"),
        ({"images": COLOUR[:, :, :, :3], "labels": LABELS}, "in which two numbers may count the channels"),
        ({"test_images": COLOUR, "test_labels": LABELS}, "holds no training pictures"),
        ({"images": np.array(["a"], object), "labels": LABELS}, "is corrupt or not a plain"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str) -> None:
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(InputError, match=sentence):
        imported(tmp_path / "in.npz")


def test_a_thousand_classes_are_imported(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2000, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", images=images, labels=np.arange(2000) % 1000)
    content, split = imported(tmp_path / "many.npz")
    np.testing.assert_array_equal(split.images[:, 0], images)
    assert content["splits"]["train"]["counts"] == [2] * 1000


def test_an_archive_that_unfolds_without_end_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", b"small")
    content = bytearray((tmp_path / "bomb.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size that the directory claims
    content[at : at + 4] = struct.pack("<I", 4_000_000_000)
    (tmp_path / "bomb.npz").write_bytes(content)
    with pytest.raises(InputError, match="unfold to 4,000,000,000: no pictures do that"):
        imported(tmp_path / "bomb.npz")


# CIFAR


def binstring(text: bytes) -> bytes:
    return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<I", len(text))) + text


def as_python_2(content: dict[str, np.ndarray | list[Any]]) -> bytes:
    """What Python 2 pickles of a dict of arrays and lists, instruction for instruction."""
    out = b"\x80\x02}q\x01("
    for key, value in content.items():
        out += binstring(key.encode())
        if isinstance(value, np.ndarray):
            out += b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05("
            out += b"K\x01" + b"M" + struct.pack("<H", len(value)) + b"M" + struct.pack("<H", value[0].size) + b"\x86"
            out += b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNN"
            out += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + binstring(value.tobytes()) + b"tb"
        else:
            items = [b"K" + bytes([one]) if isinstance(one, int) else binstring(one.encode()) for one in value]
            out += b"]q\x08(" + b"".join(items) + b"e"
    return out + b"u."


def as_python_3(content: dict[str, np.ndarray | list[Any]]) -> bytes:
    return pickle.dumps(content, protocol=4)


NAMES = ["airplane", "automobile", "bird"]


@pytest.mark.parametrize("pickled", [as_python_2, as_python_3])
def test_cifar_10_in_its_python_version_is_read_without_unpickling(tmp_path: Path, pickled: Any) -> None:
    folder = tmp_path / "in/cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(pickled({"data": COLOUR[:4].reshape(4, -1), "labels": LABELS[:4].tolist()}))
    (folder / "data_batch_2").write_bytes(pickled({"data": COLOUR[4:].reshape(4, -1), "labels": LABELS[4:].tolist()}))
    (folder / "test_batch").write_bytes(pickled({"data": COLOUR[:3].reshape(3, -1), "labels": LABELS[:3].tolist()}))
    (folder / "batches.meta").write_bytes(pickled({"label_names": NAMES}))
    content, split = imported(tmp_path / "in")
    np.testing.assert_array_equal(split.images, COLOUR)
    assert (split.classes, split.labels.tolist()) == (tuple(NAMES), LABELS.tolist())
    assert content["splits"]["test"]["counts"] == [1, 1, 1]
    assert "'data_batch_1', 'data_batch_2', 'test_batch', 'batches.meta': not the published CIFAR-10" in said(content)


def test_cifar_100_is_read_with_its_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    batch = {"data": COLOUR.reshape(8, -1), "fine_labels": LABELS.tolist(), "coarse_labels": [0] * 8}
    for name in ("train", "test"):
        (folder / name).write_bytes(as_python_2(batch))
    (folder / "meta").write_bytes(as_python_2({"fine_label_names": NAMES, "coarse_label_names": ["x"]}))
    content, split = imported(folder)
    np.testing.assert_array_equal(split.images, COLOUR)
    assert (content["form"], split.classes, split.labels.tolist()) == ("cifar", tuple(NAMES), LABELS.tolist())


@pytest.mark.parametrize(
    ("files", "before", "names"),
    [
        (("data_batch_1.bin", "test_batch.bin"), 1, "batches.meta.txt"),
        (("train.bin", "test.bin"), 2, "fine_label_names.txt"),
    ],
)
def test_the_binary_versions_are_read(tmp_path: Path, files: tuple[str, str], before: int, names: str) -> None:
    (tmp_path / "in").mkdir()
    labels = np.zeros((8, before), np.uint8)
    labels[:, -1] = LABELS
    for name in files:
        (tmp_path / "in" / name).write_bytes(np.concatenate([labels, COLOUR.reshape(8, -1)], 1).tobytes())
    (tmp_path / "in" / names).write_text("\n".join(NAMES) + "\n\n")
    _, split = imported(tmp_path / "in")
    np.testing.assert_array_equal(split.images, COLOUR)
    assert (split.classes, split.labels.tolist()) == (tuple(NAMES), LABELS.tolist())


class Evil:
    def __reduce__(self) -> Any:
        return (open, ("pwned", "w"))


def test_a_batch_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4):
        Path("data_batch_1").write_bytes(pickle.dumps({"data": Evil(), "labels": []}, protocol=protocol))
        with pytest.raises(InputError, match=r"asks for '_?_?i?o?(builtin(s|__))? ?open', which no CIFAR file needs"):
            read_pickled(Path("data_batch_1"))
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}q\x01(U\x04data", b"\x80\x02u.", b"\x80\x02]q\x00h\x07.", b"text", b"N."]
)
def test_a_damaged_batch_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged or not a CIFAR file|which no CIFAR file needs"):
        read_pickled(tmp_path / "data_batch_1")


def test_the_published_digests_are_those_that_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_python_2({"data": COLOUR.reshape(8, -1), "labels": LABELS.tolist()})
    names = as_python_2({"label_names": NAMES})
    (tmp_path / "in").mkdir()
    (tmp_path / "in/batches.meta").write_bytes(names)
    (tmp_path / "in/data_batch_1").write_bytes(content)
    monkeypatch.setitem(cifar.PYTHON_10, "data_batch_1", hashlib.md5(content).hexdigest())
    monkeypatch.setitem(cifar.PYTHON_10, "batches.meta", hashlib.md5(names).hexdigest())
    assert imported(tmp_path / "in")[0]["notes"] == []


# IDX


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["raw", "MNIST/raw", "."])
def test_the_files_of_mnist_are_read(tmp_path: Path, test_split: LabelledImages, packed: bool, place: str) -> None:
    folder = tmp_path / "in" / place
    folder.mkdir(parents=True)
    for images, labels in idx.FILES.values():
        for name, array in ((images, test_split.images[:, 0]), (labels, test_split.labels)):
            content = idx_bytes(array)
            (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    content, split = imported(tmp_path / "in")
    np.testing.assert_array_equal(split.images, test_split.images)
    np.testing.assert_array_equal(split.labels, test_split.labels)
    assert split.classes == tuple("0123456789")
    assert ("not the published MNIST, Fashion-MNIST, KMNIST" in said(content)) == packed


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: b"<html>", lambda content: content[:3]]
)
def test_an_idx_file_that_is_none_is_refused(tmp_path: Path, damage: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / idx.FILES["train"][0]).write_bytes(damage(idx_bytes(COLOUR[:, 0])))
    (tmp_path / "in" / idx.FILES["train"][1]).write_bytes(idx_bytes(LABELS))
    with pytest.raises(InputError, match=r"claims to hold|not an IDX file"):
        imported(tmp_path / "in")


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in idx.FILES["train"]:
        (tmp_path / "in" / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(COLOUR[:, 0]))[:-20])
    with pytest.raises(InputError, match="is damaged"):
        imported(tmp_path / "in")


# GTSRB, ImageNet, Hugging Face


@pytest.mark.parametrize("place", ["GTSRB/Final_Training/Images", "gtsrb/GTSRB/Training"])
def test_the_german_traffic_signs_are_read_with_their_regions(tmp_path: Path, place: str) -> None:
    root = tmp_path / "in" / place
    head = ["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
    for label in range(2):
        rows = [[f"{n:05d}_00000.ppm", 40, 40, 4, 5, 35, 36, label] for n in range(3)]
        for number, row in enumerate(rows):
            save(root / f"{label:05d}" / str(row[0]), noise(10 * label + number, 40, 40))
        with (root / f"{label:05d}/GT-{label:05d}.csv").open("w", newline="") as file:
            csv.writer(file, delimiter=";").writerows([head, *rows])
    test = (
        tmp_path
        / "in"
        / place.replace("Final_Training/Images", "Final_Test/Images").replace("Training", "Final_Test/Images")
    )
    for number in range(2):
        save(test / f"{number:05d}.ppm", noise(50 + number, 40, 40))
    above = tmp_path / "in/gtsrb" if place.startswith("gtsrb") else test
    with (above / "GT-final_test.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(
            [head, *([f"{n:05d}.ppm", 40, 40, 4, 5, 35, 36, 1 - n] for n in range(2))]
        )
    content, split = imported(tmp_path / "in")
    assert (content["form"], split.classes, split.labels.tolist()) == ("gtsrb", ("00000", "00001"), [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(split.images[4], noise(11, 40, 40).transpose(2, 0, 1))
    assert content["splits"]["test"]["counts"] == [1, 1]
    assert "--regions true cuts them out" in said(content)
    cut = imported(tmp_path / "in", regions=True)[1].images[4]
    np.testing.assert_array_equal(cut, noise(11, 40, 40)[5:37, 4:36].transpose(2, 0, 1))


def tiny_imagenet(folder: Path) -> Path:
    synsets = ("n01443537", "n01629819")
    for number, synset in enumerate(synsets):
        for index in range(3):
            save(folder / f"train/{synset}/images/{synset}_{index}.JPEG", noise(10 * number + index, 64, 64))
        (folder / f"train/{synset}/{synset}_boxes.txt").write_text("boxes")
    for index in range(2):
        save(folder / f"val/images/val_{index}.JPEG", noise(70 + index, 64, 64))
    (folder / "val/val_annotations.txt").write_text(
        "".join(f"val_{n}.JPEG\t{synsets[1 - n]}\t0\t0\t62\t62\n" for n in (0, 1))
    )
    save(folder / "test/images/test_0.JPEG", noise(80, 64, 64))
    (folder / "wnids.txt").write_text("\n".join(reversed(synsets)))
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander\n")
    return folder


def test_tiny_imagenet_is_read_with_its_words(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path / "in/tiny-imagenet-200")
    (tmp_path / "in/tiny-imagenet-200.zip").write_bytes(b"another")
    content, split = imported(tmp_path / "in")
    assert content["form"] == "tiny-imagenet"
    assert split.classes == ("n01443537 goldfish", "n01629819 European fire salamander")
    assert (split.images.shape, split.labels.tolist()) == ((6, 3, 64, 64), [0, 0, 0, 1, 1, 1])
    assert content["splits"]["test"]["counts"] == [1, 1]
    assert table_of(tmp_path / "in", "test")["name"][0] == "tiny-imagenet-200/val/images/val_0.JPEG"
    assert "'tiny-imagenet-200.zip': not the published Tiny-ImageNet" in said(content)


def test_imagenet_is_read_with_validation_in_folders_or_by_a_table(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path / "in")
    for name in ("wnids.txt", "val/val_annotations.txt"):
        (tmp_path / "in" / name).unlink()
    content, _ = imported(tmp_path / "in")
    assert (content["form"], list(content["splits"])) == ("imagenet", ["train"])
    assert "val has no folders of classes, and no table tells its labels" in said(content)
    rows = "".join(f"val_{index},n0{(1443537, 1629819)[index]} 1 2 3 4\n" for index in range(2))
    (tmp_path / "in/LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{rows}")
    for path in sorted((tmp_path / "in/val/images").iterdir()):
        path.rename(tmp_path / "in/val" / path.name)
    (tmp_path / "in/val/images").rmdir()
    assert imported(tmp_path / "in")[0]["splits"]["test"]["counts"] == [1, 1]
    for index, synset in enumerate(("n01443537", "n01629819")):
        (tmp_path / "in/val" / synset).mkdir()
        (tmp_path / f"in/val/val_{index}.JPEG").rename(tmp_path / f"in/val/{synset}/x.JPEG")
    assert imported(tmp_path / "in")[0]["splits"]["test"]["counts"] == [1, 1]
    assert table_of(tmp_path / "in", "test")["name"][0] == "val/n01443537/x.JPEG"


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def hub_file(path: Path, rows: range, labels: list[int], *, broken: int = -1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": b"broken" if row == broken else png(noise(row)), "path": None} for row in rows]
    features = {"img": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    written = pyarrow.table({"img": pyarrow.array(cells, kind), "label": pyarrow.array(labels, pyarrow.int64())})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pyarrow.parquet.write_table(written.replace_schema_metadata(metadata), path, row_group_size=3)


def test_parquet_files_of_the_hub_are_read_with_their_class_names(tmp_path: Path) -> None:
    hub_file(tmp_path / "in/data/train-00000-of-00002.parquet", range(4), LABELS[:4].tolist())
    hub_file(tmp_path / "in/data/train-00001-of-00002.parquet", range(4, 8), LABELS[4:].tolist())
    hub_file(tmp_path / "in/data/test-00000-of-00001.parquet", range(3), [0, 1, 2])
    hub_file(tmp_path / "in/data/validation-00000-of-00001.parquet", range(3), [-1, -1, -1])
    content, split = imported(tmp_path / "in")
    np.testing.assert_array_equal(split.images, COLOUR)
    assert (content["form"], split.classes, split.labels.tolist()) == ("huggingface", tuple(NAMES), LABELS.tolist())
    assert content["splits"]["test"]["counts"] == [1, 1, 1]
    assert "val has no labels: it was left out" in content["notes"]
    assert form_of(tmp_path / "in/data/train-00000-of-00002.parquet") == "huggingface"


def test_a_broken_picture_or_a_label_that_is_none_in_parquet_is_named(tmp_path: Path) -> None:
    hub_file(tmp_path / "in/train.parquet", range(8), LABELS.tolist(), broken=5)
    assert imported(tmp_path / "in", skipped_limit=0.2)[0]["skipped"][0]["name"] == "train.parquet/00005"
    hub_file(tmp_path / "in/train.parquet", range(8), [*LABELS[:7].tolist(), 3])
    with pytest.raises(InputError, match=r"1 train labels outside of its 3 classes, of 'train.parquet/00007'"):
        imported(tmp_path / "in")
    (tmp_path / "in/train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"cannot be read|no Parquet file that can be read"):
        imported(tmp_path / "in")
