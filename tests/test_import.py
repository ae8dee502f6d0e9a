"""Importing pictures: what lies in a folder is what is in the data set, and whatever is wrong is skipped or refused."""

import json
import os
import signal
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from pud.base.config import from_mapping
from pud.base.errors import InputError
from pud.base.files import sha256
from pud.data.images import LabelledImages
from pud.data.readers import open_split, open_training_split
from pud.exchange import import_decoding
from pud.exchange.import_duplicates import near_duplicates
from pud.exchange.importing import FEW, ImportConfig, import_pictures, summary
from pud.platform.commands_import import import_command


def noise(number: int, height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    """A smooth picture that no other number gives."""
    small = np.random.default_rng(number).integers(0, 256, (8, 8, channels), dtype=np.uint8)
    big = Image.fromarray(small[..., 0] if channels == 1 else small).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(big)


def save(path: Path, picture: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes of six PNGs."""
    for number in range(12):
        save(tmp_path / "pictures" / ("cat", "dog")[number % 2] / f"{number:02d}.png", noise(number))
    return tmp_path / "pictures"


def imported(source: Path, seed: int = 0, form: str = "", **settings: Any) -> tuple[dict[str, Any], LabelledImages]:
    """The content of import.json and the training split of an import into ``out`` beside the source."""
    out = source.parent / "out"
    content = import_pictures(source, out, from_mapping(ImportConfig, settings), seed=seed, form=form)
    return content, open_split(out / "train")


def table_of(source: Path, split: str = "train") -> pd.DataFrame:
    return pd.read_parquet(source.parent / "out" / split / "pictures.parquet")


def one_channel(split: LabelledImages, name: str, source: Path) -> np.ndarray:
    return split.images[table_of(source)["name"].tolist().index(name)]


def test_a_folder_of_classes_becomes_a_data_set(pictures: Path) -> None:
    content, split = imported(pictures)
    assert split.classes == ("cat", "dog")
    assert open_training_split(pictures.parent / "out").labels.tolist() == [0] * 6 + [1] * 6
    expected = [noise(number).transpose(2, 0, 1) for number in (*range(0, 12, 2), *range(1, 12, 2))]
    np.testing.assert_array_equal(split.images, expected)
    assert (content["form"], content["source"], content["splits"]["train"]["counts"]) == ("folder", "pictures", [6, 6])
    assert json.loads((pictures.parent / "out/import.json").read_text()) == content
    assert str(pictures.parent) not in json.dumps(content)
    with Image.open(pictures.parent / "out/contact-sheet.jpg") as sheet:
        assert sheet.format == "JPEG"


def test_the_array_has_the_bytes_that_numpy_writes(pictures: Path, tmp_path: Path) -> None:
    _, split = imported(pictures)
    np.save(tmp_path / "saved.npy", split.images)
    assert (tmp_path / "saved.npy").read_bytes() == (tmp_path / "out/train/images.npy").read_bytes()


def test_the_table_tells_where_each_image_comes_from(pictures: Path) -> None:
    save(pictures / "dog/below/wide.jpg", noise(50, 20, 60))
    imported(pictures)
    table = table_of(pictures)
    assert table.columns.tolist() == ["index", "name", "width", "height", "duplicate_of"]
    assert table["name"].tolist()[-2:] == ["dog/11.png", "dog/below/wide.jpg"]
    assert table[["width", "height"]].iloc[-1].tolist() == [60, 20]
    assert (table["index"] == np.arange(13)).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_one_import_gives_the_same_bytes_as_another(pictures: Path, workers: int) -> None:
    for number in range(FEW):
        save(pictures / "cat" / f"more{number}.jpg", noise(100 + number))
    imported(pictures, workers=1)
    before = {file: sha256(pictures.parent / "out/train" / file) for file in ("images.npy", "pictures.parquet")}
    imported(pictures, workers=workers)
    assert before == {file: sha256(pictures.parent / "out/train" / file) for file in before}


def test_mixed_sizes_are_brought_to_the_median_and_that_is_said(pictures: Path) -> None:
    for number, side in enumerate((40, 48, 64, 200) * 4):
        save(pictures / "cat" / f"more{number}.png", noise(90 + number, side, side + 10))
    content, split = imported(pictures)
    assert split.images.shape[1:] == (3, 40, 40)
    assert any("brought to 40x40, the median" in note for note in content["notes"])
    assert imported(pictures, size_cap=16)[1].images.shape[1:] == (3, 16, 16)
    assert imported(pictures, size=24)[1].images.shape[1:] == (3, 24, 24)


def test_a_picture_is_stretched_whole_or_cropped_to_its_middle(tmp_path: Path) -> None:
    halves = np.zeros((20, 60, 3), np.uint8)
    halves[:, :20], halves[:, 40:] = 255, 255
    for name in ("a", "b"):
        save(tmp_path / "in" / name / "x.png", halves)
    corner = lambda fit: imported(tmp_path / "in", size=20, fit=fit)[1].images[0, 0]  # noqa: E731
    assert (corner("stretch")[:, [0, -1]] == 255).all()
    assert (corner("crop") == 0).all()


def as_16_bit() -> Image.Image:
    return Image.fromarray((np.arange(1024, dtype=np.uint16) * 64).reshape(32, 32))


def test_every_usual_kind_of_picture_is_read(tmp_path: Path) -> None:
    folder, colour = tmp_path / "in", noise(3)
    clear = np.dstack([colour, np.zeros((32, 32), np.uint8)])
    turned = Image.Exif()
    turned[0x0112] = 6
    save(folder / "a/grey.png", noise(1, channels=1))
    save(folder / "a/black-and-white.png", Image.fromarray(noise(1, channels=1)).convert("1"))
    save(folder / "a/palette.gif", Image.fromarray(colour).convert("P"))
    save(folder / "a/clear.png", clear)
    save(folder / "a/16bit.png", as_16_bit())
    save(folder / "b/cmyk.jpg", Image.fromarray(colour).convert("CMYK"))
    save(folder / "b/plain.webp", colour, lossless=True)
    save(folder / "b/plain.ppm", colour)
    save(folder / "b/plain.tif", colour)
    save(folder / "b/turned.jpg", noise(5, 24, 32), exif=turned)
    content, split = imported(folder)
    assert content["skipped"] == []
    assert split.images.shape == (10, 3, 32, 32)
    assert (one_channel(split, "a/clear.png", folder) == 255).all()
    np.testing.assert_array_equal(one_channel(split, "a/16bit.png", folder)[0].ravel(), np.arange(1024) * 64 // 256)
    for name in ("webp", "ppm", "tif"):
        np.testing.assert_array_equal(one_channel(split, f"b/plain.{name}", folder), colour.transpose(2, 0, 1))
    table = table_of(folder).set_index("name")
    assert table.loc["b/turned.jpg", ["width", "height"]].tolist() == [24, 32]
    assert list(content["splits"]["train"]["traits"]) == [
        "in CMYK",
        "of 16 bits, the upper 8 were kept",
        "of one colour all over",
        "turned as EXIF says",
        "with a palette",
        "with transparency, put on white",
    ]
    assert (one_channel(imported(folder, background="black")[1], "a/clear.png", folder) == 0).all()
    assert imported(folder, upright=False)[0]["splits"]["train"]["traits"].get("turned as EXIF says") is None


def test_a_turned_picture_stands_upright(tmp_path: Path) -> None:
    standing = np.zeros((32, 32, 3), np.uint8)
    standing[:16] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    for name in ("a", "b"):
        save(tmp_path / "in" / name / "x.png", np.rot90(standing), exif=exif)
    np.testing.assert_array_equal(imported(tmp_path / "in")[1].images[0], standing.transpose(2, 0, 1))


def test_grey_pictures_stay_grey_unless_colour_is_asked_for(sample_folder: Path, tmp_path: Path) -> None:
    given = open_split(sample_folder / "test")
    for index in range(40):
        save(tmp_path / "in" / str(given.labels[index]) / f"{index:03d}.png", given.images[index, 0])
    _, split = imported(tmp_path / "in")
    order = [int(name[-7:-4]) for name in table_of(tmp_path / "in")["name"]]
    np.testing.assert_array_equal(split.images, given.images[order])
    assert imported(tmp_path / "in", channels=3)[1].images.shape[1] == 3


def test_a_large_jpeg_is_nearly_what_it_is_when_decoded_whole(tmp_path: Path) -> None:
    large = noise(7, 512, 512)
    for name in ("a", "b"):
        save(tmp_path / "in" / name / "x.jpg", large, quality=95)
    whole = np.array(Image.fromarray(large).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(imported(tmp_path / "in", size=32)[1].images[0].astype(int) - whole).mean() < 2


def test_splits_by_folders_are_kept_and_validation_stands_in_for_test(pictures: Path) -> None:
    for split in ("val", "test"):
        for number in range(4):
            save(pictures.parent / "parted" / split / ("cat", "dog")[number % 2] / f"{number}.png", noise(60 + number))
    pictures.rename(pictures.parent / "parted/train")
    content, _ = imported(pictures.parent / "parted")
    assert content["splits"]["test"]["counts"] == [2, 2]
    assert "the pictures for validation were left out" in content["notes"]
    assert table_of(pictures.parent / "parted", "test")["name"][0] == "test/cat/0.png"
    for path in sorted((pictures.parent / "parted/test").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert imported(pictures.parent / "parted")[0]["splits"]["test"]["counts"] == [2, 2]
    assert table_of(pictures.parent / "parted", "test")["name"][0] == "val/cat/0.png"


def test_nothing_is_taken_from_what_is_examined_unless_asked(pictures: Path) -> None:
    assert list(imported(pictures)[0]["splits"]) == ["train"]
    content, _ = imported(pictures, test_share=0.33, seed=1)
    assert [content["splits"][name]["counts"] for name in ("train", "test")] == [[4, 4], [2, 2]]
    first = {name: set(table_of(pictures, name)["name"]) for name in ("train", "test")}
    assert first["train"] | first["test"] == {f"{('cat', 'dog')[n % 2]}/{n:02d}.png" for n in range(12)}
    assert not first["train"] & first["test"]
    imported(pictures, test_share=0.33, seed=1)
    assert set(table_of(pictures, "test")["name"]) == first["test"]
    imported(pictures, test_share=0.33, seed=2)
    assert set(table_of(pictures, "test")["name"]) != first["test"]


# what is wrong with one picture


def test_broken_and_truncated_files_are_listed_and_skipped(pictures: Path) -> None:
    whole = save(pictures / "cat/z.jpg", noise(40)).read_bytes()
    (pictures / "cat/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "cat/text.jpg").write_text("no picture")
    (pictures / "cat/empty.png").touch()
    content, split = imported(pictures, skipped_limit=0.2)
    assert len(split.labels) == 13
    assert [one["name"] for one in content["skipped"]] == ["cat/empty.png", "cat/text.jpg", "cat/truncated.jpg"]
    assert "truncated" in content["skipped"][2]["reason"].lower()
    assert not (set(table_of(pictures)["name"]) & {one["name"] for one in content["skipped"]})
    assert "skipped: 3" in summary(content)


def test_too_many_broken_files_are_refused(pictures: Path) -> None:
    (pictures / "cat/text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"more than 5 % .*'cat/text.jpg' is no picture"):
        imported(pictures)
    assert not (pictures.parent / "out").exists()
    assert [path.name for path in pictures.parent.iterdir()] == ["pictures"]


def png_that_claims(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("side", "said"), [(100_000, "claims more pixels than"), (8_000, "claims 8,000 x 8,000")])
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(pictures: Path, side: int, said: str) -> None:
    (pictures / "cat/bomb.png").write_bytes(png_that_claims(side))
    content, _ = imported(pictures, skipped_limit=0.2)
    assert [one["name"] for one in content["skipped"]] == ["cat/bomb.png"]
    assert content["skipped"][0]["reason"].startswith(said)


def test_links_out_of_the_folder_are_not_followed(pictures: Path, tmp_path: Path) -> None:
    secret = save(tmp_path / "elsewhere/secret.png", noise(70))
    (pictures / "cat/link.png").symlink_to(secret)
    (pictures / "cat/inner.png").symlink_to(pictures / "dog/01.png")
    (pictures / "cat/folder").symlink_to(secret.parent)
    (pictures / "dog/nowhere.png").symlink_to(tmp_path / "nothing.png")
    (pictures / "dog/loop").symlink_to(pictures)
    content, _ = imported(pictures, skipped_limit=0.5)
    assert {one["name"]: one["reason"] for one in content["skipped"]} == {
        "cat/folder": "is a link to a folder",
        "cat/link.png": "is a link out of the folder",
        "dog/nowhere.png": "is a link out of the folder",
        "dog/loop": "is a link to a folder",
    }
    assert "cat/inner.png" in set(table_of(pictures)["name"])


def test_hidden_files_and_broken_data_about_a_picture_are_passed_over(pictures: Path) -> None:
    (pictures / "cat/._00.png").write_bytes(b"what a Mac writes beside")
    save(pictures / "cat/exif.jpg", noise(9), exif=b"Exif\0\0broken")
    content, split = imported(pictures)
    assert (content["skipped"], len(split.labels)) == ([], 13)


def test_what_is_no_file_is_not_opened(pictures: Path) -> None:
    os.mkfifo(pictures / "cat/pipe.png")  # opening it would wait for ever
    assert imported(pictures, skipped_limit=0.2)[0]["skipped"] == [{"name": "cat/pipe.png", "reason": "is not a file"}]


HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    "line\nbreak.png",
    "\u202egnp.exe.png",
    "'; DROP TABLE--.png",
    "$(touch pwned).png",
    f"{'long' * 60}.png",
)


def test_hostile_names_are_kept_as_text_and_printed_on_one_line(pictures: Path) -> None:
    for number, name in enumerate(HOSTILE):
        save(pictures / "cat" / name, noise(80 + number))
    (pictures / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes((pictures / "cat/00.png").read_bytes())
    (pictures / "cat/bad\u202e\n.png").write_text("no picture")
    save(pictures / "\u202e<script>\n" / "1.png", noise(99))
    content, _ = imported(pictures, skipped_limit=0.2)
    names = set(table_of(pictures)["name"])
    assert {f"cat/{name}" for name in HOSTILE} <= names
    assert "cat/caf\\xe9.png" in names
    said = summary(content)
    assert "\u202e" not in said
    assert all(line.startswith(("pictures", "train", "  ", "skipped", "note")) for line in said.split("\n"))


def test_a_picture_that_ends_its_decoder_is_one_sentence(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(FEW):
        save(pictures / "cat" / f"more{number}.jpg", noise(100 + number))
    monkeypatch.setattr(import_decoding, "decode", lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(InputError, match="a process that decodes pictures died"):
        imported(pictures, workers=1)
    assert not (pictures.parent / "out").exists()


# what is wrong with the whole


def test_an_empty_class_is_refused(pictures: Path) -> None:
    (pictures / "emu").mkdir()
    with pytest.raises(InputError, match="no training picture is left of class 'emu'"):
        imported(pictures)


def test_a_class_whose_pictures_are_all_broken_is_refused(pictures: Path) -> None:
    (pictures / "emu").mkdir()
    (pictures / "emu/1.png").write_text("no picture")
    with pytest.raises(InputError, match=r"of class 'emu' \('emu/1.png' is no picture"):
        imported(pictures, skipped_limit=0.5)


def test_a_class_of_one_picture_is_said(pictures: Path) -> None:
    save(pictures / "emu/1.png", noise(30))
    content, _ = imported(pictures)
    assert content["splits"]["train"]["counts"] == [6, 6, 1]
    assert "of one picture each, of which little can be learned or said: 'emu'" in content["notes"]


def test_a_class_of_the_test_pictures_alone_is_refused(pictures: Path) -> None:
    root = pictures.parent / "root"
    root.mkdir()
    pictures.rename(root / "train")
    save(root / "test/emu/1.png", noise(30))
    with pytest.raises(InputError, match=r"test has a folder 'emu', and the training pictures no class of this name"):
        imported(root)


def test_near_duplicates_are_found_also_under_another_label(pictures: Path) -> None:
    again = Image.fromarray(noise(2))
    save(pictures / "cat/again.jpg", again, quality=90)
    save(pictures / "dog/again.png", again)
    save(pictures / "dog/other.png", noise(20))
    content, _ = imported(pictures)
    table = table_of(pictures).set_index("name")["duplicate_of"]
    first = table_of(pictures)["name"].tolist().index("cat/02.png")
    assert table[table >= 0].to_dict() == {"cat/again.jpg": first, "dog/again.png": first}
    told = content["splits"]["train"]
    assert (told["near_duplicates"], told["near_duplicates_of_another_class"]) == (2, 1)
    assert "2 near-duplicates of earlier ones, 1 of these with another label" in summary(content)


def test_near_duplicates_are_those_that_comparing_all_pairs_finds() -> None:
    generator = np.random.default_rng(0)
    originals = generator.integers(0, 240, (200, 8, 9)).astype(np.uint8)
    copies = originals[:50] + generator.integers(0, 2, (50, 8, 9)).astype(np.uint8)
    thumbnails = np.concatenate([originals, copies])
    means = thumbnails.mean((1, 2), keepdims=True).round().astype(np.uint8).repeat(3, 2)[:, 0]
    first = near_duplicates(thumbnails, means, 2.0)
    assert first[:200].tolist() == [-1] * 200
    assert first[200:].tolist() == list(range(50))
    assert near_duplicates(thumbnails[:1], means[:1], 2.0).tolist() == [-1]


def test_constant_pictures_are_kept_and_counted(pictures: Path) -> None:
    for number in range(3):
        save(pictures / "cat" / f"flat{number}.png", np.full((32, 32, 3), 100 * number, np.uint8))
    save(pictures / "cat/flat3.png", np.full((32, 32, 3), 100, np.uint8))
    content, _ = imported(pictures)
    assert content["splits"]["train"]["traits"] == {"of one colour all over": 4}
    assert content["splits"]["train"]["near_duplicates"] == 1  # only those of the same grey


@pytest.mark.parametrize("other", ["Cat", "cat ", "ｃat"])
def test_names_of_classes_that_are_easily_mistaken_are_refused(pictures: Path, other: str) -> None:
    save(pictures / other / "1.png", noise(30))
    with pytest.raises(InputError, match="easily taken for one another"):
        imported(pictures)


def test_a_single_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    save(tmp_path / "in/cat/1.png", noise(1))
    with pytest.raises(InputError, match="has one class, 'cat'"):
        imported(tmp_path / "in")


def test_no_pictures_at_all_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        imported(tmp_path / "nothing")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="holds no labelled pictures in a known form"):
        imported(tmp_path / "in")
    save(tmp_path / "in/1.png", noise(1))
    with pytest.raises(InputError, match="a folder for each class"):
        imported(tmp_path / "in")
    (tmp_path / "empty/cat").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no training picture"):
        imported(tmp_path / "empty")
    (tmp_path / "in.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="is an archive: unpack it"):
        imported(tmp_path / "in.zip")


def test_a_folder_around_the_classes_is_looked_through(pictures: Path) -> None:
    outer = pictures.parent / "outer"
    outer.mkdir()
    pictures.rename(outer / "pictures")
    (outer / "__MACOSX").mkdir()
    content, split = imported(outer)
    assert split.classes == ("cat", "dog")
    assert "the classes lie in 'pictures'" in content["notes"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fit": "squeeze"}, "fit is 'squeeze': choose one of stretch, crop"),
        ({"channels": 2}, "channels is 2: choose one of 0, 1, 3"),
        ({"size": 5000}, "from 0 to 4096"),
        ({"test_share": 1.0}, "from 0 to 0.9"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(pictures: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        imported(pictures, **settings)


# what is wrong with the folder to write


def test_a_folder_of_other_things_is_never_overwritten(pictures: Path) -> None:
    out = pictures.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other things"):
        imported(pictures)
    assert (out / "thesis.txt").read_text() == "mine"


def test_the_source_is_never_written_into(pictures: Path) -> None:
    for out in (pictures / "data", pictures, pictures.parent):
        with pytest.raises(InputError, match=r"would be taken for pictures|would be lost"):
            import_pictures(pictures, out, ImportConfig(), seed=0)
    assert sorted(path.name for path in pictures.iterdir()) == ["cat", "dog"]


def test_a_second_import_takes_the_place_of_the_first(pictures: Path) -> None:
    imported(pictures)
    save(pictures / "emu/1.png", noise(30))
    assert imported(pictures)[1].classes == ("cat", "dog", "emu")


def test_of_two_imports_at_once_one_is_there_whole(pictures: Path) -> None:
    errors: list[BaseException] = []

    def run(size: int) -> None:
        try:
            imported(pictures, size=size)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(size,)) for size in (16, 24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) < 2
    assert open_split(pictures.parent / "out/train").images.shape in [(12, 3, 16, 16), (12, 3, 24, 24)]
    assert not list(pictures.parent.glob("*partial*"))


def test_a_full_disk_is_said_and_leaves_nothing(pictures: Path, small_disk: Path) -> None:
    for number in range(40):
        save(pictures / "cat" / f"more{number}.png", noise(200 + number))
    with pytest.raises(InputError, match="cannot be written: the disk took no more"):
        import_pictures(pictures, small_disk / "out", ImportConfig(), seed=0)
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that even root cannot write into."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=40k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a read-only disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder_is_said(pictures: Path, read_only: Path) -> None:
    with pytest.raises(OSError, match="Read-only file system") as caught:  # pud.platform.cli.main says it in a sentence
        import_pictures(pictures, read_only / "out", ImportConfig(), seed=0)
    assert str(read_only / "out") in str(caught.value.filename)


# the command


def test_the_command_says_what_it_did(pictures: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(import_command, [str(pictures), "--out", str(tmp_path / "out"), "--size", "16"])
    assert done.exit_code == 0, done.output
    assert "pictures, read as folder: 2 classes, 16x16 in colour" in done.output
    assert "train: 12 pictures of 32x32; 6 of each class" in done.output
    assert len(open_split(tmp_path / "out/train").labels) == 12
