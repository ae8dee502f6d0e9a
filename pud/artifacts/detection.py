"""A detection on disk: ``detection.parquet`` with a row an image, ``detection.json`` with what was concluded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pud.base.errors import InputError
from pud.base.files import read_json, within, write_json
from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, CLEAN, NONE_FOUND, POISONED, UNSURE, Detection

FORMAT, OLDER = "pud-detection/2", "pud-detection/1"
MARK, TABLE = "detection.json", "detection.parquet"
MAXIMUM_BYTES, MAXIMUM_ROWS = 8 << 30, 50_000_000
NAMED = 3  # of the classes that cannot be judged in a sentence; detection.json names all
COLUMNS = {  # kinds of number
    "index": "i",
    "given_label": "i",
    "suspicion": "f",
    "posterior": "f",
    "verdict": "OU",
    "inferred_label": "i",
    "may_unlearn": "b",
}


def verdict_of(detection: Detection, classes: Sequence[str]) -> str:
    """Return in one sentence what a detection says; ``classes``: the names of the classes, or none."""

    def named(label: int) -> str:
        return f"{label} ({classes[label]})" if classes and classes[label] != str(label) else str(label)

    accused, n = int((detection.verdict == POISONED).sum()), len(detection.verdict)
    reasons = [f"{named(label)}: {reason}" for label, reason in detection.unjudged.items()]
    more = f"; and {len(reasons) - NAMED} more classes" if len(reasons) > NAMED else ""
    unjudged = "; ".join(reasons[:NAMED]) + more
    alone = ", ".join(map(named, detection.shortcuts))
    if detection.target_labels:
        to = ", ".join(map(named, detection.target_labels))
        also = f"; a short way in the model, but no accused image, leads to class {alone}" if alone else ""
        also += f"; cannot be judged: class {unjudged}" if unjudged else ""
        return f"{BACKDOOR} to class {to}: {accused} of {n} images{also}"
    return f"{CANNOT_BE_JUDGED}: class {unjudged}" if unjudged else NONE_FOUND


def save_detection(folder: Path, detection: Detection, labels: np.ndarray, about: dict[str, Any]) -> None:
    """Write a detection of images with given labels (n,).

    about: how it was made; its ``classes``, if any, name the classes in the verdict.
    """
    columns = {name: getattr(detection, name) for name in COLUMNS if hasattr(detection, name)}
    table = pd.DataFrame({"index": np.arange(len(labels)), "given_label": labels, **columns})
    table.to_parquet(folder / TABLE, index=False)
    write_json(
        folder / MARK,
        {
            "format": FORMAT,
            "verdict": verdict_of(detection, about.get("classes", ())),
            "verdict_code": detection.conclusion,
            "unjudged": {str(label): reason for label, reason in detection.unjudged.items()},
            "target_labels": detection.target_labels,
            "shortcuts": detection.shortcuts,
            "confidence": detection.confidence,
            "separation": detection.separation.tolist(),
            "counts": {name: int(count) for name, count in table["verdict"].value_counts().items()},
            **about,
        },
    )


def load_detection(folder: Path, labels: np.ndarray | None = None) -> tuple[Detection, dict[str, Any]]:
    """Read a detection, and how it was made.

    Args:
        labels: of the images that it must be about, (n,).

    Raises:
        InputError: the folder is incomplete, of an older version, its table corrupt or too large, or about other
            images.
    """
    path = Path(folder) / TABLE
    if read_json(Path(folder) / MARK, FORMAT, OLDER)["format"] == OLDER:
        raise InputError(f"{folder} is a detection of an older version of pud: detect again")
    content = read_json(Path(folder) / MARK, FORMAT, target_labels=list, separation=list, settings=dict)
    try:
        table = _read_table(path)
        _check_table(table, len(content["separation"]), path, labels)
        detection = Detection(
            suspicion=table["suspicion"].to_numpy(),
            posterior=table["posterior"].to_numpy(),
            verdict=table["verdict"].to_numpy(str),
            inferred_label=table["inferred_label"].to_numpy(np.int64),
            may_unlearn=table["may_unlearn"].to_numpy(),
            target_labels=content["target_labels"],
            confidence=content["confidence"],
            separation=np.array(content["separation"], np.float64),
            shortcuts=[int(label) for label in content.get("shortcuts", [])],
            unjudged={int(label): str(reason) for label, reason in content.get("unjudged", {}).items()},
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path} is missing or corrupt ({error}): detect again") from error
    return detection, content


def _read_table(path: Path) -> pd.DataFrame:
    if (rows := pq.read_metadata(within(path, MAXIMUM_BYTES)).num_rows) > MAXIMUM_ROWS:
        raise InputError(f"{path} claims {rows:,} rows, more than any data set here has images: do not use it")
    schema = pq.read_schema(path)
    if any(pa.types.is_nested(schema.field(name).type) for name in COLUMNS):
        raise ValueError("a column holds no plain values")
    # texts stay in their dictionary: a long one that many rows name would fill the memory
    table = pq.read_table(path, columns=list(COLUMNS), read_dictionary=list(COLUMNS))
    return table.to_pandas(ignore_metadata=True)


def _check_table(table: pd.DataFrame, classes: int, path: Path, labels: np.ndarray | None) -> None:
    for name, kinds in COLUMNS.items():
        if table[name].dtype.kind not in kinds:
            raise ValueError(f"{name} is of type {table[name].dtype}")
    wrong = {
        "index": table["index"] != np.arange(len(table)),
        "given_label": ~table["given_label"].between(0, classes - 1),
        "suspicion": ~np.isfinite(table["suspicion"]),
        "posterior": ~table["posterior"].between(0, 1),
        "verdict": ~table["verdict"].isin([CLEAN, UNSURE, POISONED]),
        "inferred_label": ~table["inferred_label"].between(-1, classes - 1),
        "may_unlearn": table["may_unlearn"] & (table["verdict"] != POISONED),
    }
    for name, rows in wrong.items():
        if rows.any():
            raise ValueError(f"{name} in row {int(np.argmax(rows))} is {str(table[name][int(np.argmax(rows))])[:40]}")
    if labels is not None and not np.array_equal(table["given_label"], labels):
        raise InputError(f"{path} is about other images: give the detection of this data set")
