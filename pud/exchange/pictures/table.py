"""A table of path and label, as CSV or Parquet; paths are relative to the folder that it lies in.

Columns are found by their names. A column ``split`` parts the rows; so do tables called train, val and test in one
folder.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pud.base.errors import InputError
from pud.exchange.pictures.contract import (
    Form,
    Pictures,
    fenced,
    listed,
    numbered,
    read_text,
    shown,
    split_named,
    text_of,
)
from pud.exchange.pictures.folder import files_split, subfolders

SUFFIXES = (".csv", ".tsv", ".parquet")
PATHS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "img_path",
    "name",
)
LABELS = ("label", "class", "classid", "class_id", "class_name", "target", "category", "y", "labels")
HEAD_LETTERS = 1 << 16
MAXIMUM_ROWS = 50_000_000
MAXIMUM_TABLE_BYTES = 4 << 30
NAMES_OF_CLASSES = ("classes.json", "classes.txt", "train/dataset.json")


def class_names(folder: Path, notes: list[str]) -> tuple[str, ...]:
    """Return what a file beside the data calls the classes, in the order of their numbers; empty if there is none.

    ``classes.json`` is a list, ``classes.txt`` has a name on each line.
    """
    import json

    for path in (folder / name for name in NAMES_OF_CLASSES):
        if not path.is_file():
            continue
        text = read_text(path, notes)
        if path.suffix == ".txt":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as JSON ({error}): write a list of names") from error
        content = content.get("classes") if isinstance(content, dict) else content
        if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
            raise InputError(f"{path} is no list of names: write one, in the order of the labels")
        return tuple(content)
    return ()


def _column(columns: Sequence[str], words: Sequence[str], path: Path, what: str) -> str:
    by_word = {name.strip().lower(): name for name in columns}
    for word in words:
        if word in by_word:
            return by_word[word]
    raise InputError(
        f"{path} has no column of {what}, only {listed(columns)}: name one of them {shown(words[0])} "
        f"(or {', '.join(words[1:4])})"
    )


def _read(path: Path, notes: list[str], labelled: bool) -> tuple[list[str], list[Any], list[str]]:
    """Return paths, labels and words for splits of all rows; the last are empty words without such a column."""
    columns = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(read_text(path, notes), path)
    names = columns[_column(list(columns), PATHS, path, "paths")]
    labels = columns[_column(list(columns), LABELS, path, "labels")] if labelled else [0] * len(names)
    parts = next((values for name, values in columns.items() if name.strip().lower() == "split"), [""] * len(names))
    return list(map(str, names)), labels, [str(part) for part in parts]


def _csv(text: str, path: Path) -> dict[str, list[Any]]:
    head = text.partition("\n")[0]
    delimiter = max("\t;,", key=head.count)
    csv.field_size_limit(1 << 20)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is no table ({error}): write it again") from error
    rows = [row for row in rows if row]
    columns, rows = (rows[0], rows[1:]) if rows else ([], [])
    for number, row in enumerate(rows, 2):
        if len(row) != len(columns):
            raise InputError(
                f"{path} has {len(row)} fields in row {number} and {len(columns)} in the first: mend that row"
            )
    return {name: [row[index] for row in rows] for index, name in enumerate(columns)}


def _parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            if file.metadata.num_rows > MAXIMUM_ROWS or size > MAXIMUM_TABLE_BYTES:
                raise InputError(
                    f"{path} holds {file.metadata.num_rows:,} rows, {size:,} bytes: more than a table of paths"
                )
            wanted = {*PATHS, *LABELS, "split"}
            names = [name for name in file.schema_arrow.names if name.lower() in wanted]
            return file.read(columns=names).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet file that can be read ({error}): write it again") from error


def _tables(source: Path) -> dict[str, Path]:
    """Return the tables of a source by their splits; one table alone is that of training."""
    if source.is_file():
        return {"train": source} if source.suffix.lower() in SUFFIXES else {}
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    named = {split: path for path in found if (split := split_named(path.stem))}
    if "train" in named:
        return named
    return {"train": found[0]} if len(found) == 1 else {}


def reads(source: Path) -> bool:
    """Tell whether the source is a table, or a folder with one, or with one called train.

    Beside several folders, which may be classes, it must have the columns.
    """
    tables = _tables(source).values()
    return bool(tables) and (source.is_file() or len(subfolders(source)) < 2 or all(map(_has_columns, tables)))


def _has_columns(path: Path) -> bool:
    """Tell whether a table seems to have columns of paths and labels."""
    import pyarrow
    import pyarrow.parquet

    try:
        if path.suffix.lower() == ".parquet":
            names = pyarrow.parquet.read_schema(path).names
        else:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                names = re.split(r"[\t;,]", file.readline(HEAD_LETTERS))
    except (pyarrow.ArrowException, OSError):
        return False
    words = {name.strip(' "\n').lower() for name in names}
    return bool(words & set(PATHS)) and bool(words & set(LABELS))


def _whole(label: Any) -> bool:
    return isinstance(label, int) or (isinstance(label, str) and label.strip().lstrip("-").isdecimal())


def open_unlabelled(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures that the rows name, without their labels."""
    return open_table(source, scratch, value_range, labelled=False)


def open_table(source: Path, scratch: Path, value_range: tuple[float, ...] = (), *, labelled: bool = True) -> Pictures:
    """Return the pictures that the rows name. Labels are whole numbers from 0, or words, whose classes are in order of
    the alphabet."""
    root = source if source.is_dir() else source.parent
    found = Pictures({}, ())
    rows: dict[str, tuple[list[str], list[Any]]] = {}
    for split, path in _tables(source).items():
        for name, label, part in zip(*_read(path, found.notes, labelled), strict=True):
            names, labels = rows.setdefault(split_named(part) or split, ([], []))
            names.append(name)
            labels.append(label)
    every = [label for _, labels in rows.values() for label in labels]
    if empty := sum(label is None or label == "" for label in every):
        raise InputError(f"{source} has {empty:,} rows without a label: give each one, or remove them")
    named = class_names(root, found.notes)
    if all(map(_whole, every)) and not all(str(label) in named for label in every):
        numbers = {split: np.array([int(label) for label in labels], np.int64) for split, (_, labels) in rows.items()}
        classes = named or tuple(map(str, range(max((int(label) for label in every), default=-1) + 1)))
    else:
        words = {split: [str(label).strip() for label in labels] for split, (_, labels) in rows.items()}
        classes = named or tuple(sorted(set(words.get("train", []))))
        numbers = {split: numbered(labels, classes) for split, labels in words.items()}
    fence = fenced(root)
    for split, (names, _) in rows.items():
        reasons = [fence(name) for name in names]
        found.skipped.extend((text_of(name), reason) for name, reason in zip(names, reasons, strict=True) if reason)
        kept = [index for index, reason in enumerate(reasons) if not reason]
        found.splits[split] = files_split(root, [names[index] for index in kept], numbers[split][kept])
    return Pictures(found.splits, classes, found.notes, found.skipped)


FORMS = {"table": Form(reads, open_table, unlabelled=open_unlabelled)}
