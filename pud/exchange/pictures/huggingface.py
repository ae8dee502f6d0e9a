"""Parquet files of the Hugging Face hub: a column of pictures (a struct of bytes and path) and one of labels.

Class names stand in the schema's metadata. The split is in a file's name, ``train-00000-of-00002.parquet``, or in the
folder's.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pud.base.errors import InputError
from pud.exchange.pictures.contract import Form, Pictures, Raw, Split, fenced, split_named

LABELS = ("label", "fine_label", "labels", "class", "target")
MAXIMUM_GROUP_BYTES = 4 << 30
MAXIMUM_ROWS = 50_000_000
GROUPS_AT_HAND = 3


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix.lower() == ".parquet" else []
    fence = fenced(source)
    found = [path for depth in ("*", "*/*", "*/*/*") for path in source.glob(f"{depth}.parquet")]
    return sorted(path for path in found if not fence(path.relative_to(source).as_posix()))


def _picture_column(schema: Any) -> str:
    """Return the name of the column that holds files' contents, or an empty word."""
    import pyarrow

    for column in schema:
        if pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            return column.name
    return ""


def reads(source: Path) -> bool:
    """Tell whether the first Parquet file there has a column of pictures."""
    import pyarrow
    import pyarrow.parquet

    try:
        return any(_picture_column(pyarrow.parquet.read_schema(path)) for path in _files(source)[:1])
    except (pyarrow.ArrowException, OSError):
        return False


def _split_of(path: Path, source: Path) -> str:
    """Return the split that the words of a file's name, or its folder's, tell; train if there are none."""
    inside = path.relative_to(source) if source.is_dir() else Path(path.name)
    words = [word for part in reversed(inside.with_suffix("").parts) for word in part.replace("_", "-").split("-")]
    return next(filter(None, map(split_named, words)), "train")


def _features(schema: Any) -> dict[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return features if isinstance(features, dict) else {}
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


def _class_names(schema: Any, column: str) -> tuple[str, ...]:
    feature = _features(schema).get(column)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def open_parquet(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures of all files, of which a few row groups are in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    files: dict[str, list[Path]] = {}
    for path in _files(source):
        files.setdefault(_split_of(path, source), []).append(path)
    found = Pictures({}, ())
    try:
        schema = pyarrow.parquet.read_schema(files.get("train", next(iter(files.values())))[0])
        pictures = _picture_column(schema)
        label = next((name for name in LABELS if name in schema.names), "")
        if not label:
            raise InputError(f"{source} has no column of labels, only {', '.join(schema.names)}: call it label")
        classes = _class_names(schema, label)
        for split, paths in files.items():
            opened = _split(paths, pictures, label, source)
            if split != "train" and len(opened.labels) and np.all(opened.labels == -1):
                found.notes.append(f"{split} has no labels: it was left out")
            else:
                found.splits[split] = opened
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{source} cannot be read as Parquet ({error}): get it again") from error
    if not classes:
        last = max((int(split.labels.max()) for split in found.splits.values() if len(split.labels)), default=-1)
        classes = tuple(map(str, range(last + 1)))
    return Pictures(found.splits, classes, found.notes)


def _split(paths: list[Path], pictures: str, label: str, source: Path) -> Split:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    groups: list[tuple[Path, int]] = []
    counts: list[int] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    for path in paths:
        with pyarrow.parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > MAXIMUM_ROWS:
                raise InputError(f"{path} claims {file.metadata.num_rows:,} rows: do not use it")
            for index in range(file.metadata.num_row_groups):
                if (size := file.metadata.row_group(index).total_byte_size) > MAXIMUM_GROUP_BYTES:
                    raise InputError(f"{path} has a row group of {size:,} bytes: write it again in smaller ones")
                groups.append((path, index))
                counts.append(file.metadata.row_group(index).num_rows)
            column = file.read(columns=[label]).column(label)
            if not pyarrow.types.is_integer(column.type):
                raise InputError(f"{path} has labels of type {column.type}: whole numbers are needed")
            labels.append(pyarrow.compute.fill_null(column, -1).to_numpy().astype(np.int64))
            inside = path.relative_to(source).as_posix() if source.is_dir() else path.name
            names += [f"{inside}/{row:05d}" for row in range(len(labels[-1]))]
    ends = np.cumsum(counts)

    @lru_cache(GROUPS_AT_HAND)
    def group(number: int) -> Any:
        path, index = groups[number]
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.read_row_group(index, columns=[pictures], use_threads=False).column(pictures)

    def picture(index: int) -> Raw:
        number = int(np.searchsorted(ends, index, side="right"))
        cell = group(number)[index - int(ends[number]) + counts[number]].as_py()
        if not cell or not cell.get("bytes"):
            raise ValueError("no picture is in this row")
        return bytes(cell["bytes"])

    return Split(names, np.concatenate(labels), picture)


FORMS = {"huggingface": Form(reads, open_parquet)}
