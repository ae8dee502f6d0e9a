"""The German traffic signs, GTSRB (Stallkamp et al. 2012), as published and as torchvision lays them out.

A folder for each class with PPM files and a table ``GT-00000.csv`` of the region in which the sign is; test pictures in
one folder, with ``GT-final_test.csv``.
"""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from pud.base.errors import InputError
from pud.exchange.pictures.contract import Form, Pictures, fenced, not_published, read_text, text_of
from pud.exchange.pictures.folder import class_folders, files_split, subfolders

TRAINING = ("Training", "Final_Training/Images", "train")
TEST = ("Final_Test/Images", "Test", "test")
PLACES = (".", "GTSRB", "gtsrb/GTSRB", "gtsrb")
TEST_TABLE = "GT-final_test.csv"
REGION = ("Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")
PUBLISHED = {  # md5, as torchvision states them
    "GTSRB-Training_fixed.zip": "513f3c79a4c5141765e10e952eaa2478",
    "GTSRB_Final_Test_Images.zip": "c7e4e6327067d32654124b0fe9e82185",
    "GTSRB_Final_Test_GT.zip": "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
}


def _training(source: Path) -> Path | None:
    for folder in (source / place / name for place in PLACES for name in TRAINING):
        if any(folder.glob("00000/GT-00000.csv")):
            return folder
    return None


def reads(source: Path) -> bool:
    """Tell whether there is a folder of class 0 with its table."""
    return _training(source) is not None


def _table(path: Path, notes: list[str]) -> dict[str, dict[str, str]]:
    """Return the rows of a table by file name."""
    rows = csv.DictReader(io.StringIO(read_text(path, notes), newline=""), delimiter=";", skipinitialspace=True)
    return {row["Filename"]: row for row in rows if row.get("Filename")}


def _region(row: dict[str, str] | None) -> tuple[int, ...]:
    """Return the region of a picture; its last column and row are in it."""
    if row is None:
        return 0, 0, 0, 0
    left, top, right, bottom = (int(row[name]) for name in REGION)
    return left, top, right + 1, bottom + 1


def open_gtsrb(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the signs with their regions; classes are named as their folders, test labels are numbers of these."""
    training = _training(source)
    assert training, source
    classes = [folder.name for folder in subfolders(training)]
    found = Pictures({}, tuple(map(text_of, classes)))
    split = class_folders(training, source, classes, found)
    try:
        regions = {
            f"{name}/{file}": _region(row)
            for name in classes
            if (table := training / name / f"GT-{name}.csv").is_file()
            for file, row in _table(table, found.notes).items()
        }
        boxes = [regions.get("/".join(name.split("/")[-2:]), (0, 0, 0, 0)) for name in split.names]
        found.splits["train"] = replace(split, regions=np.array(boxes, np.int64).reshape(-1, 4))
        above = (training.parent, training.parent.parent)
        folders = [base / name for base in above for name in TEST]
        final = next((path for base in (*above, source, *folders) if (path := base / TEST_TABLE).is_file()), None)
        pictures = next((folder for folder in folders if any(folder.glob("*.ppm"))), None)
        if final and pictures:
            fence = fenced(source)
            names, labels, boxes = [], [], []
            for file, row in _table(final, found.notes).items():
                name = f"{pictures.relative_to(source).as_posix()}/{file}"
                if reason := fence(name):
                    found.skipped.append((name, reason))
                    continue
                names.append(name)
                labels.append(int(row["ClassId"]))
                boxes.append(_region(row))
            found.splits["test"] = files_split(source, names, labels, np.array(boxes, np.int64).reshape(-1, 4))
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"a table of {source} lacks Filename, ClassId or {', '.join(REGION)}, or holds no numbers there ({error}): "
            "get it again"
        ) from error
    archives = {folder / name: md5 for folder in (source, source / "gtsrb") for name, md5 in PUBLISHED.items()}
    found.notes.extend(not_published(archives, "GTSRB"))
    return found


FORMS = {"gtsrb": Form(reads, open_gtsrb)}
