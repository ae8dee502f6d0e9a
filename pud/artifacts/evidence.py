"""A probe on disk: ``probe.safetensors`` with the arrays of the evidence, ``probe.json`` with how it was gathered."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pud.base.config import from_mapping
from pud.base.errors import InputError
from pud.base.files import read_json, within, write_json
from pud.evidence.contract import FilledRule, InfectedEvidence, PurifiedEvidence

FORMAT, OLDER = "pud-probe/6", ("pud-probe/5", "pud-probe/4", "pud-probe/3", "pud-probe/2")
MARK, ARRAYS = "probe.json", "probe.safetensors"
MAXIMUM_BYTES = 8 << 30
SHAPES = {  # of the arrays of both types: kind of number, and a letter a dimension: images, classes, features, two
    "labels": ("i", "n"),
    "scene": ("i", "n"),
    "logits": ("f", "nk"),
    "features": ("f", "nd"),
    "noise_survival": ("f", "n"),
    "mix_survival": ("f", "n"),
    "mix_entropy": ("f", "n"),
    "heldout": ("f", "nk"),
    "strange": ("b", "n"),
    "trigger_score": ("f", "n"),
    "scored": ("b", "k"),
    "changes": ("f", "tmk"),
}


def save_evidence(folder: Path, evidence: InfectedEvidence | PurifiedEvidence, about: dict[str, Any]) -> None:
    """Write a probe. about: how it was made; ``rounds_done`` in it says of which type the evidence is.

    Raises:
        InputError: numbers that are not finite.
    """
    arrays = {
        name: np.ascontiguousarray(values) for name, values in vars(evidence).items() if isinstance(values, np.ndarray)
    }
    _check_finite(arrays, "the model's")
    save_file(arrays, folder / ARRAYS)
    if isinstance(evidence, PurifiedEvidence):
        about = {**about, "filled_rule": dataclasses.asdict(evidence.filled_rule)}
    write_json(folder / MARK, {"format": FORMAT, "images": len(evidence.labels), **about})


def load_evidence(folder: Path) -> tuple[InfectedEvidence | PurifiedEvidence, dict[str, Any]]:
    """Read a probe: the evidence, and how it was gathered.

    Raises:
        InputError: the folder is incomplete, of an older version, or its file corrupt.
    """
    folder, path = Path(folder), Path(folder) / ARRAYS
    if read_json(folder / MARK, FORMAT, *OLDER)["format"] in OLDER:
        raise InputError(f"{folder} is a probe of an older version of pud: probe again")
    about = read_json(folder / MARK, FORMAT, rounds_done=int, adversarial_share=list, settings=dict)
    more = {"filled_rule": _filled_rule(folder)} if about["rounds_done"] else {}
    kind: type[Any] = PurifiedEvidence if about["rounds_done"] else InfectedEvidence
    try:
        arrays = load_file(within(path, MAXIMUM_BYTES))
        evidence = kind(**arrays, **more)
        _check_shapes(arrays)
    except InputError:
        raise
    except (OSError, SafetensorError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} is missing or corrupt ({error}): probe again") from error
    _check_finite(arrays, f"{folder}: its")
    return evidence, about


def _filled_rule(folder: Path) -> FilledRule:
    """Read the rule by which a purified model's contradictions fill a class."""
    try:
        return from_mapping(FilledRule, read_json(folder / MARK, FORMAT, filled_rule=dict)["filled_rule"])
    except TypeError as error:
        raise InputError(f"{folder / MARK} has a filled_rule that lacks something ({error}): probe again") from error


def _check_shapes(arrays: dict[str, np.ndarray]) -> None:
    sizes = {**dict(zip("nk", arrays["logits"].shape, strict=True)), "t": 2}
    for name, values in arrays.items():
        kind, letters = SHAPES[name]
        wanted = [sizes.get(letter) for letter in letters]
        fits = values.ndim == len(wanted) and all(w in (None, s) for w, s in zip(wanted, values.shape, strict=True))
        if values.dtype.kind != kind or not values.size or not fits:
            raise ValueError(f"{name} is {values.dtype} {values.shape}")
    if not 0 <= arrays["labels"].min() <= arrays["labels"].max() < sizes["k"]:
        raise ValueError("labels of no class")


def _check_finite(arrays: dict[str, np.ndarray], whose: str) -> None:
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise InputError(f"{whose} {name} are not finite for all images: nothing can be said of such a model")
