"""The artifacts that pass between the steps: how each lies on disk. No torch here, so that detect starts fast."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pud.base.errors import InputError
from pud.base.files import MAXIMUM_JSON_BYTES, finished_folder, read_json, within, write_json
from pud.detectors.pud import BACKDOOR, CANNOT_BE_JUDGED, CLEAN, NONE_FOUND, POISONED, UNSURE, Detection
from pud.evidence.contract import Evidence

EVIDENCE_FORMAT = "pud-probe/2"
DETECTION_FORMAT = "pud-detection/1"
MAXIMUM_BYTES, MAXIMUM_ROWS = 8 << 30, 50_000_000  # of evidence or a verdict: a row an image
NAMED = 3  # of the classes that cannot be judged in a sentence; detection.json names all


@contextmanager
def timed_folder(
    path: Path, step: str, mark: str, *inputs: Path, before: dict[str, float] | None = None
) -> Iterator[Path]:
    """Yield a step's output folder, as ``finished_folder`` does; on success it holds the step's seconds."""
    started = time.monotonic()
    with finished_folder(path, mark, *inputs) as folder:
        yield folder
        seconds = {**(before or {}), step: round(time.monotonic() - started, 2)}
        (folder / "timing.json").write_text(json.dumps(seconds) + "\n")


def timing(folder: Path) -> dict[str, float]:
    """Return the seconds of the steps that made a folder, by step; empty for a folder from elsewhere."""
    path = Path(folder) / "timing.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(within(path, MAXIMUM_JSON_BYTES).read_text())
        if not all(map(math.isfinite, content.values())):
            raise ValueError("not finite")
        return {str(step): float(seconds) for step, seconds in content.items()}
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} names no seconds by step ({error}): remove it") from error


def save_evidence(folder: Path, evidence: Evidence, about: dict[str, Any]) -> None:
    """Write a probe: ``probe.safetensors`` and ``probe.json``."""
    arrays = {field.name: np.ascontiguousarray(getattr(evidence, field.name)) for field in dataclasses.fields(evidence)}
    _check_finite(arrays, "the model's")
    save_file(arrays, folder / "probe.safetensors")
    write_json(folder / "probe.json", {"format": EVIDENCE_FORMAT, "images": len(evidence.labels), **about})


def _check_finite(arrays: dict[str, np.ndarray], whose: str) -> None:
    for name, values in arrays.items():
        if name != "trigger_score" and not np.isfinite(values).all():
            raise InputError(f"{whose} {name} are not finite for all images: nothing can be said of such a model")


ARRAYS = {  # of a probe: kind of number and dimensions
    "labels": ("i", 1),
    "logits": ("f", 2),
    "features": ("f", 2),
    "noise_survival": ("f", 1),
    "mix_survival": ("f", 1),
    "adversarial_labels": ("i", 1),
    "votes": ("f", 2),
    "trigger_score": ("f", 1),
}


def load_evidence(folder: Path) -> tuple[Evidence, dict[str, Any]]:
    """Read a probe: the evidence, and how it was gathered.

    Raises:
        InputError: the folder is incomplete or its file corrupt.
    """
    folder = Path(folder)
    about = read_json(folder / "probe.json", EVIDENCE_FORMAT, rounds_done=int, adversarial_share=list, settings=dict)
    try:
        arrays = load_file(within(folder / "probe.safetensors", MAXIMUM_BYTES))
        evidence, classes = Evidence(**arrays), arrays["logits"].shape[1]
        for name, (kind, dimensions) in ARRAYS.items():
            if arrays[name].dtype.kind != kind or arrays[name].ndim != dimensions or not arrays[name].size:
                raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}")
        if evidence.votes.shape != evidence.logits.shape or np.isinf(evidence.trigger_score).any():
            raise ValueError("votes or trigger_score cannot be")
        _check_finite(arrays, f"{folder}: its")
        if any(len(values) != len(evidence.labels) for values in arrays.values()):
            raise InputError(f"{folder / 'probe.safetensors'} is not of one number of images: probe again")
        if not len(evidence.labels) or not 0 <= evidence.labels.min() <= evidence.labels.max() < classes:
            raise InputError(f"{folder / 'probe.safetensors'} has no images, or labels of no class: probe again")
        return evidence, about
    except InputError:
        raise
    except (OSError, SafetensorError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{folder / 'probe.safetensors'} is missing or corrupt ({error}): probe again") from error


COLUMNS = {"index": "i", "given_label": "i", "suspicion": "f", "posterior": "f", "verdict": "OU", "shown": "i"}


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
        "shown": ~table["shown"].between(-1, classes - 1),
    }
    for name, rows in wrong.items():
        if rows.any():
            raise ValueError(f"{name} in row {int(np.argmax(rows))} is {str(table[name][int(np.argmax(rows))])[:40]}")
    if labels is not None and not np.array_equal(table["given_label"], labels):
        raise InputError(f"{path} is about other images: give the detection of this data set")


def verdict_of(detection: Detection, classes: Sequence[str]) -> str:
    """Return in one sentence what a detection says; ``classes``: the names of the classes, or none."""

    def named(label: int) -> str:
        return f"{label} ({classes[label]})" if classes and classes[label] != str(label) else str(label)

    accused, n = int((detection.verdict == POISONED).sum()), len(detection.verdict)
    reasons = [f"{named(label)}: {reason}" for label, reason in detection.unjudged.items()]
    more = f"; and {len(reasons) - NAMED} more classes" if len(reasons) > NAMED else ""
    unjudged = "; ".join(reasons[:NAMED]) + more
    if detection.target_labels:
        to = ", ".join(map(named, detection.target_labels))
        also = f"; cannot be judged: class {unjudged}" if unjudged else ""
        return f"{BACKDOOR} to class {to}: {accused} of {n} images{also}"
    return f"{CANNOT_BE_JUDGED}: class {unjudged}" if unjudged else NONE_FOUND


def save_detection(folder: Path, detection: Detection, labels: np.ndarray, about: dict[str, Any]) -> None:
    """Write ``detection.parquet`` (a row an image) and ``detection.json`` (what was concluded).

    about: how it was made; its ``classes``, if any, name the classes in the verdict.
    """
    table = pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "given_label": labels,
            "suspicion": detection.suspicion,
            "posterior": detection.posterior,
            "verdict": detection.verdict,
            "shown": detection.shown,
        }
    )
    table.to_parquet(folder / "detection.parquet", index=False)
    counts = {name: int(count) for name, count in table["verdict"].value_counts().items()}
    write_json(
        folder / "detection.json",
        {
            "format": DETECTION_FORMAT,
            "verdict": verdict_of(detection, about.get("classes", ())),
            "verdict_code": detection.conclusion,
            "unjudged": {str(label): reason for label, reason in detection.unjudged.items()},
            "target_labels": detection.target_labels,
            "confidence": detection.confidence,
            "separation": [None if np.isnan(value) else float(value) for value in detection.separation],
            "counts": counts,
            **about,
        },
    )


def load_detection(folder: Path, labels: np.ndarray | None = None) -> tuple[Detection, dict[str, Any]]:
    """Read a detection, and how it was made.

    Args:
        labels: of the images that it must be about, (n,).

    Raises:
        InputError: the folder is incomplete, its table corrupt or too large, or about other images.
    """
    path = Path(folder) / "detection.parquet"
    content = read_json(
        Path(folder) / "detection.json", DETECTION_FORMAT, target_labels=list, separation=list, settings=dict
    )
    try:
        if (rows := pq.read_metadata(within(path, MAXIMUM_BYTES)).num_rows) > MAXIMUM_ROWS:
            raise InputError(f"{path} claims {rows:,} rows, more than any data set here has images: do not use it")
        schema = pq.read_schema(path)
        if any(pa.types.is_nested(schema.field(name).type) for name in COLUMNS):
            raise ValueError("a column holds no plain values")
        # texts stay in their dictionary: a long one that many rows name would fill the memory
        plain = pq.read_table(path, columns=list(COLUMNS), read_dictionary=list(COLUMNS))
        table = plain.to_pandas(ignore_metadata=True)
        _check_table(table, len(content["separation"]), path, labels)
        detection = Detection(
            suspicion=table["suspicion"].to_numpy(),
            posterior=table["posterior"].to_numpy(),
            verdict=table["verdict"].to_numpy(str),
            shown=table["shown"].to_numpy(np.int64),
            target_labels=content["target_labels"],
            confidence=content["confidence"],
            separation=np.array([np.nan if value is None else value for value in content["separation"]]),
            unjudged={int(label): str(reason) for label, reason in content.get("unjudged", {}).items()},
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path} is missing or corrupt ({error}): detect again") from error
    return detection, content
