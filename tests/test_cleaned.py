"""Cleaned data: who goes and who is relabelled is what purification does, the rest stays bit for bit, links and names
of strangers lead nowhere."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from torch import nn

from pud.artifacts.detection import save_detection
from pud.base.errors import InputError
from pud.data.images import LabelledImages, folder_digest
from pud.data.readers import open_split
from pud.data.readers.npy import FILES, write_split
from pud.defences.contract import State
from pud.defences.selection import select
from pud.detectors.contract import CLEAN, POISONED, UNSURE, Detection
from pud.exchange.cleaned import CHANGES, CHANGES_TEXT, PICTURES, read_pictures, write_cleaned, write_pictures_back
from pud.exchange.importing import ImportConfig, import_pictures
from pud.platform.commands_clean import clean_command

N = 60
REMOVED, RELABELLED, RIGHT, DOUBTFUL = np.arange(3, 9), np.arange(20, 25), np.arange(30, 33), np.arange(40, 42)


def of_nothing(n: int) -> Detection:
    """A detection that accuses nobody of n images in ten classes."""
    return Detection(
        suspicion=np.zeros(n),
        posterior=np.zeros(n),
        verdict=np.full(n, CLEAN, "U8"),
        inferred_label=np.full(n, -1),
        may_unlearn=np.zeros(n, bool),
        target_labels=[],
        separation=np.zeros(10),
        confidence=0.9,
    )


def accusing(labels: np.ndarray) -> Detection:
    """A detection of some images: of unknown content, showing the next class, of the right label, and doubtful ones."""
    found = of_nothing(len(labels))
    found.verdict[np.concatenate([REMOVED, RELABELLED, RIGHT])] = POISONED
    found.verdict[DOUBTFUL], found.posterior[DOUBTFUL] = UNSURE, 0.5
    found.inferred_label[RELABELLED] = (labels[RELABELLED] + 1) % 10
    found.inferred_label[RIGHT] = labels[RIGHT]
    found.posterior[found.verdict == POISONED] = 0.98
    found.target_labels.append(int(labels[REMOVED[0]]))
    return found


def detected(folder: Path, found: Detection, labels: np.ndarray) -> Path:
    """The detection on disk."""
    folder.mkdir()
    save_detection(folder, found, labels, {"settings": {}})
    return folder


def described(split: Path, names: list[str], **columns: object) -> None:
    """Write the table of pictures of a split."""
    none = {"width": 28, "height": 28, "duplicate_of": np.full(len(names), -1)}
    table = pd.DataFrame({"index": np.arange(len(names)), "name": names, **none, **columns})
    table.to_parquet(split / PICTURES, index=False)


@pytest.fixture
def given(tmp_path: Path, sample_folder: Path) -> Path:
    """The first images of the sample as a data set, with names of pictures."""
    for name in ("train", "test"):
        split, some = open_split(sample_folder / name), slice(N)
        about = {"classes": split.classes, "name": split.name, "source": "the sample"}
        write_split(tmp_path / "data" / name, split.images[some], split.labels[some], **about)
        described(tmp_path / "data" / name, [f"{name}/{label}/{i}.png" for i, label in enumerate(split.labels[some])])
    return tmp_path / "data"


@pytest.fixture
def train(given: Path) -> LabelledImages:
    return open_split(given / "train")


@pytest.fixture
def detection(tmp_path: Path, train: LabelledImages) -> Path:
    return detected(tmp_path / "detection", accusing(train.labels), train.labels)


# ----------------------------------------------------------------------------------------------------------- data set


def test_accused_images_go_or_get_the_label_that_they_show_and_all_others_stay_as_they_are(
    given: Path, train: LabelledImages, detection: Path, tmp_path: Path
) -> None:
    before = folder_digest(given)
    counts = write_cleaned(given, detection, tmp_path / "out")
    gone = np.concatenate([REMOVED, RIGHT])
    kept, labels = np.delete(np.arange(N), gone), train.labels.copy()
    labels[RELABELLED] = (labels[RELABELLED] + 1) % 10
    cleaned = open_split(tmp_path / "out/train")
    np.testing.assert_array_equal(cleaned.images, train.images[kept])
    np.testing.assert_array_equal(cleaned.labels, labels[kept])
    assert cleaned.classes == train.classes
    assert counts == {"kept_images": 51, "removed_images": 9, "relabelled_images": 5, "unsure_images": 2}
    assert folder_digest(given) == before
    for file in FILES:
        assert (tmp_path / "out/test" / file).read_bytes() == (given / "test" / file).read_bytes()


def test_the_data_set_says_which_data_and_which_detection_it_comes_from_and_is_the_same_twice(
    given: Path, train: LabelledImages, detection: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        write_cleaned(given, detection, tmp_path / name)
    source = json.loads((tmp_path / "one/train/dataset.json").read_text())["source"]
    assert train.digest in source
    assert train.labels_digest in source
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")


def test_who_is_relabelled_and_who_goes_is_what_purification_does(
    given: Path, train: LabelledImages, tmp_path: Path
) -> None:
    random, found = np.random.default_rng(0), of_nothing(N)
    found.verdict[:] = random.choice([CLEAN, UNSURE, POISONED], N)
    inferred = random.integers(-1, 10, N)
    found.inferred_label[:] = np.where(found.verdict == POISONED, inferred, -1)
    found.inferred_label[::7] = np.where(found.verdict == POISONED, train.labels, -1)[::7]
    write_cleaned(given, detected(tmp_path / "random", found, train.labels), tmp_path / "out")
    chosen = select(found, train.labels, State.initial(nn.Linear(1, 1), N), 1.0, True)
    stays = chosen.clean | (found.verdict == UNSURE)  # which wait for another round, and for a person here
    np.testing.assert_array_equal(open_split(tmp_path / "out/train").labels, chosen.labels[stays])
    changes = pd.read_parquet(tmp_path / "out" / CHANGES).set_index("index")["action"]
    assert set(changes.index[changes == "relabelled"]) == set(np.flatnonzero(chosen.relabelled))
    assert set(changes.index[changes == "removed"]) == set(np.flatnonzero(~stays))
    assert set(changes.index[changes == "kept"]) == set(np.flatnonzero(found.verdict == UNSURE))


def test_every_change_is_listed_with_its_reason(
    given: Path, train: LabelledImages, detection: Path, tmp_path: Path
) -> None:
    write_cleaned(given, detection, tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / CHANGES)
    assert list(table) == ["index", "name", "class", "action", "new class", "posterior", "suspicion", "reason"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / CHANGES_TEXT, keep_default_na=False), table)
    rows = table.set_index("index")
    assert sorted(rows.index) == sorted(np.concatenate([REMOVED, RELABELLED, RIGHT, DOUBTFUL]))
    assert rows.loc[3, "name"] == f"train/{train.labels[3]}/3.png"
    assert rows.loc[20, "new class"] == train.classes[(train.labels[20] + 1) % 10]
    assert rows.loc[20, "reason"].endswith(f"it shows {rows.loc[20, 'new class']}")
    assert "what it shows is not known" in rows.loc[3, "reason"]
    assert "the backdoor leads to its class" in rows.loc[3, "reason"]
    assert "its label is right" in rows.loc[30, "reason"]
    assert rows.loc[40, ["action", "new class"]].tolist() == ["kept", ""]
    assert rows.loc[40, "reason"].startswith("unsure, not accused")


def test_where_nobody_is_accused_the_data_are_the_same_bit_for_bit(
    given: Path, train: LabelledImages, tmp_path: Path
) -> None:
    counts = write_cleaned(given, detected(tmp_path / "none", of_nothing(N), train.labels), tmp_path / "out")
    cleaned = open_split(tmp_path / "out/train")
    assert (cleaned.digest, cleaned.labels_digest) == (train.digest, train.labels_digest)
    assert counts["removed_images"] == counts["relabelled_images"] == 0
    assert len(pd.read_parquet(tmp_path / "out" / CHANGES)) == 0
    pd.testing.assert_frame_equal(read_pictures(tmp_path / "out/train"), read_pictures(given / "train"))


def test_data_without_test_images_and_without_names_are_cleaned_too(
    given: Path, detection: Path, tmp_path: Path
) -> None:
    for file in (given / "test").iterdir():
        file.unlink()
    (given / "test").rmdir()
    (given / "train" / PICTURES).unlink()
    write_cleaned(given, detection, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CHANGES_TEXT, CHANGES, "train"]
    assert set(pd.read_parquet(tmp_path / "out" / CHANGES)["name"]) == {""}


def test_of_duplicates_whose_first_is_gone_the_next_is_the_first(given: Path, detection: Path, tmp_path: Path) -> None:
    first = np.full(N, -1)
    first[[10, 11, 12]] = 3  # which goes
    first[[50, 4]] = 45  # of whom 4 goes
    described(given / "train", [f"{i}.png" for i in range(N)], duplicate_of=first)
    write_cleaned(given, detection, tmp_path / "out")
    table = read_pictures(tmp_path / "out/train")
    assert table is not None
    names, of = table["name"].to_numpy(object), table["duplicate_of"].to_numpy()
    assert {names[row]: names[of[row]] for row in np.flatnonzero(of >= 0)} == {
        "11.png": "10.png",
        "12.png": "10.png",
        "50.png": "45.png",
    }


def test_a_detection_of_other_images_is_refused_before_anything_is_written(
    given: Path, train: LabelledImages, tmp_path: Path
) -> None:
    other = detected(tmp_path / "other", of_nothing(N), np.roll(train.labels, 1))
    with pytest.raises(InputError, match="is about other images"):
        write_cleaned(given, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_detection_that_leaves_nothing_is_refused_and_a_class_that_is_gone_is_named(
    given: Path, train: LabelledImages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = of_nothing(N)
    found.verdict[train.labels == 4] = POISONED
    write_cleaned(given, detected(tmp_path / "class", found, train.labels), tmp_path / "out")
    assert f"nothing is left of class {train.classes[4]}" in capfd.readouterr().err
    found.verdict[1:] = POISONED
    with pytest.raises(InputError, match="leaves 1 images"):
        write_cleaned(given, detected(tmp_path / "all", found, train.labels), tmp_path / "nothing")


def test_neither_the_source_nor_anything_else_is_replaced_but_an_older_cleaned_data_set(
    given: Path, detection: Path, sample_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="would be lost"):
        write_cleaned(given, detection, given)
    with pytest.raises(InputError, match="holds other things"):
        write_cleaned(given, detection, sample_folder)
    for _ in range(2):
        write_cleaned(given, detection, tmp_path / "out")


def test_images_pass_in_slices(tmp_path: Path) -> None:
    n, labels = 256, np.arange(256) % 10
    write_split(
        tmp_path / "data/train", np.ones((n, 1, 512, 512), np.uint8), labels, classes="abcdefghij", name="", source=""
    )
    found = detected(tmp_path / "detection", of_nothing(n), labels)
    tracemalloc.start()
    write_cleaned(tmp_path / "data", found, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20  # of 64 MiB


def test_on_a_full_disk_one_sentence_is_said_and_nothing_is_left(
    given: Path, detection: Path, small_disk: Path
) -> None:
    with pytest.raises(InputError, match="the disk took no more"):
        write_cleaned(given, detection, small_disk / "out")
    assert not list(small_disk.iterdir())


WRONG_TABLES = {
    "rows": lambda table: table.iloc[1:],
    "order": lambda table: table.assign(index=table["index"] + 1),
    "columns": lambda table: table.drop(columns="name"),
    "kind": lambda table: table.assign(name=table["index"]),
    "missing": lambda table: table.assign(name=[None, *table["name"][1:]]),
    "long": lambda table: table.assign(name="x" * 5000),
    "nested": lambda table: table.assign(name=[["x"]] * len(table)),
    "duplicates": lambda table: table.assign(duplicate_of="x"),
}


@pytest.mark.parametrize("wrong", WRONG_TABLES)
def test_a_table_of_pictures_that_is_none_is_refused(given: Path, detection: Path, tmp_path: Path, wrong: str) -> None:
    path = given / "train" / PICTURES
    WRONG_TABLES[wrong](pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(InputError, match="is no table of pictures"):
        write_cleaned(given, detection, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_hostile_name_is_shown_in_the_text_and_neither_computed_nor_obeyed(
    given: Path, detection: Path, tmp_path: Path
) -> None:
    names = [f"{i}.png" for i in range(N)]
    names[3], names[4], names[5] = "=1+1", "a\nb\x1b[2J\u202egnp.exe", "<script>"
    described(given / "train", names)
    write_cleaned(given, detection, tmp_path / "out")
    text = (tmp_path / "out" / CHANGES_TEXT).read_text()
    assert all(line.isprintable() for line in text.splitlines())
    assert "'=1+1," in text
    assert pd.read_parquet(tmp_path / "out" / CHANGES)["name"][:3].tolist() == names[3:6]


# -------------------------------------------------------------------------------------------------------- image folder


@pytest.fixture
def source(given: Path, tmp_path: Path) -> Path:
    """The image folder that the data set could be imported from."""
    folder = tmp_path / "pictures"
    for split in ("train", "test"):
        table = read_pictures(given / split)
        assert table is not None
        for name, image in zip(table["name"], open_split(given / split).images, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / name)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_what_is_left_is_an_image_folder_again_byte_by_byte(
    given: Path, train: LabelledImages, detection: Path, source: Path, tmp_path: Path
) -> None:
    before = files_of(source)
    write_cleaned(given, detection, tmp_path / "cleaned")
    assert write_pictures_back(tmp_path / "cleaned", source, tmp_path / "out") == {"pictures": 51 + N}
    written = files_of(tmp_path / "out")
    del written["cleaned.json"]
    folder = {label: name.replace("/", "_") for label, name in enumerate(train.classes)}
    labels = train.labels.copy()
    labels[RELABELLED] = (labels[RELABELLED] + 1) % 10
    kept = np.delete(np.arange(N), np.concatenate([REMOVED, RIGHT]))
    expected = {f"train/{folder[labels[i]]}/{i}.png": before[f"train/{train.labels[i]}/{i}.png"] for i in kept}
    test = open_split(given / "test").labels
    expected |= {f"test/{folder[label]}/{i}.png": before[f"test/{label}/{i}.png"] for i, label in enumerate(test)}
    assert written == expected
    assert files_of(source) == before


def test_an_imported_folder_is_cleaned_written_back_and_imported_again_with_the_same_pictures(
    source: Path, tmp_path: Path
) -> None:
    import_pictures(source, tmp_path / "imported", ImportConfig(), seed=0)
    train = open_split(tmp_path / "imported/train")
    found = detected(tmp_path / "seen", accusing(train.labels), train.labels)
    write_cleaned(tmp_path / "imported", found, tmp_path / "cleaned")
    write_pictures_back(tmp_path / "cleaned", source, tmp_path / "out")
    import_pictures(tmp_path / "out", tmp_path / "again", ImportConfig(), seed=0)
    for split in ("train", "test"):
        one, two = open_split(tmp_path / "cleaned" / split), open_split(tmp_path / "again" / split)
        assert one.classes == two.classes
        assert sorted(labelled(one)) == sorted(labelled(two))


def labelled(split: LabelledImages) -> list[tuple[int, bytes]]:
    return [(int(label), image.tobytes()) for label, image in zip(split.labels, split.images, strict=True)]


def test_names_that_would_clash_are_told_apart_whatever_their_letters_cases(
    given: Path, detection: Path, tmp_path: Path
) -> None:
    names = [f"{i}/{'PICTURE' if i % 2 else 'picture'}.png" for i in range(N)]
    for i, name in enumerate(names):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True)
        (tmp_path / "pictures" / name).write_text(str(i))
    described(given / "train", names)
    (given / "test" / PICTURES).unlink()
    write_cleaned(given, detection, tmp_path / "cleaned")
    write_pictures_back(tmp_path / "cleaned", tmp_path / "pictures", tmp_path / "out")
    written = {name.casefold(): content for name, content in files_of(tmp_path / "out").items() if "/" in name}
    kept = np.delete(np.arange(N), np.concatenate([REMOVED, RIGHT]))
    assert sorted(int(content) for content in written.values()) == kept.tolist()


@pytest.mark.parametrize(
    "name", ["../secret", "/secret", "link", "folder/secret", "", ".", "nowhere", "a\0b", "x" * 300]
)
def test_a_name_that_leads_to_no_file_of_the_source_is_refused_before_anything_is_written(
    given: Path, detection: Path, source: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "away").mkdir()
    for secret in (tmp_path / "secret", tmp_path / "away/secret"):
        secret.write_text("secret")
    (source / "link").symlink_to(tmp_path / "secret")
    (source / "folder").symlink_to(tmp_path / "away")
    table = read_pictures(given / "train")
    assert table is not None
    names = table["name"].tolist()
    names[0] = str(tmp_path / "secret") if name == "/secret" else name
    described(given / "train", names)
    write_cleaned(given, detection, tmp_path / "cleaned")
    with pytest.raises(InputError, match="has not 1 pictures of"):
        write_pictures_back(tmp_path / "cleaned", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_text_is_found_again(given: Path, detection: Path, source: Path, tmp_path: Path) -> None:
    table = read_pictures(given / "train")
    assert table is not None
    names = table["name"].tolist()
    (source / names[0]).rename(source / os.fsdecode(b"caf\xe9.png"))
    described(given / "train", [r"caf\xe9.png", *names[1:]])
    write_cleaned(given, detection, tmp_path / "cleaned")
    write_pictures_back(tmp_path / "cleaned", source, tmp_path / "out")
    assert any(name.endswith("caf_xe9.png") for name in files_of(tmp_path / "out"))


def test_classes_of_any_name_get_folders_of_their_own_inside(tmp_path: Path) -> None:
    classes = ["..", "a/b", "a_b", "A_B", "", "x" * 300, "new\nline", ".hidden", "St. Bernard dogs", "/etc"]
    labels, source = np.arange(10), tmp_path / "pictures"
    write_split(tmp_path / "data/train", np.zeros((10, 1, 4, 4), np.uint8), labels, classes=classes, name="", source="")
    source.mkdir()
    for i in range(10):
        (source / f"{i}.png").write_text(str(i))
    described(tmp_path / "data/train", [f"{i}.png" for i in range(10)])
    write_pictures_back(tmp_path / "data", source, tmp_path / "out")
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len({path.name.casefold() for path in folders}) == 10
    assert not any(path.name.startswith(".") for path in folders)
    assert (tmp_path / "out/St. Bernard dogs/8.png").is_file()
    assert len(files_of(tmp_path / "out")) == 11


def test_only_what_was_imported_from_a_folder_is_written_back_and_never_into_that_folder(
    given: Path, detection: Path, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="would be taken for a class"):
        write_pictures_back(given, source, source / "cleaned")
    with pytest.raises(InputError, match="is no folder"):
        write_pictures_back(given, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years")
    with pytest.raises(InputError, match="holds other things"):
        write_pictures_back(given, source, tmp_path / "thesis")
    (given / "train" / PICTURES).unlink()
    with pytest.raises(InputError, match="only imported pictures"):
        write_pictures_back(given, source, tmp_path / "out")


def test_the_command_writes_both_and_tells_how_many(given: Path, detection: Path, source: Path, tmp_path: Path) -> None:
    asked = ["--dataset", str(given), "--detection", str(detection), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(
        clean_command, [*asked, "--pictures", str(source), "--pictures-out", str(tmp_path / "folder")]
    )
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout.splitlines()[-1])["pictures"] == 51 + N
    said = CliRunner().invoke(clean_command, [*asked, "--pictures", str(source)])
    assert "go together" in str(said.exception)
