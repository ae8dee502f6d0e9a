"""What a form of pictures gives: labelled pictures in splits, not yet decoded."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from pud.base.errors import InputError

Raw = Path | bytes | np.ndarray
"""A picture: a file, the content of one, or uint8 (h, w) or (h, w, c) of 1, 3 or 4 channels."""

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
MAXIMUM_TEXT_BYTES = 256 << 20
SHOWN_NAMES = 5
SHOWN_LETTERS = 80


@dataclass(frozen=True)
class Split:
    """names: of n pictures, relative to the source; labels: int (n,); picture: what decoding takes of picture i, called
    in other processes; regions: int (n, 4), left, top, right and bottom of what the form says is shown, or none."""

    names: Sequence[str]
    labels: np.ndarray
    picture: Callable[[int], Raw]
    regions: np.ndarray | None = None


@dataclass(frozen=True)
class Pictures:
    """What lies in a source. splits: train, and perhaps val and test; classes: what labels are numbers of; notes: what
    a person should know, a sentence each; skipped: names of what cannot be used, with the reason."""

    splits: dict[str, Split]
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Form:
    """reads: tells whether a source is of this form, from the names of its files; open: its pictures, of the source, an
    empty folder for what has to be unpacked, and the range of values that was stated, if any; general: other forms are
    asked before; unlabelled: as open, of a source that may lack labels, where the form can be without."""

    reads: Callable[[Path], bool]
    open: Callable[[Path, Path, tuple[float, ...]], Pictures]
    general: bool = False
    unlabelled: Callable[[Path, Path, tuple[float, ...]], Pictures] | None = None


def shown(name: str) -> str:
    """Return a stranger's text as it may be printed: quoted, on one line, in its own direction, not too long."""
    return repr(name if len(name) <= SHOWN_LETTERS else f"{name[: SHOWN_LETTERS - 3]}...")


def listed(names: Iterable[str]) -> str:
    """Return the first of many names as they may be printed."""
    names = list(names)
    more = f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(map(shown, names[:SHOWN_NAMES])) + more


def text_of(name: str) -> str:
    """Return the name of a file as text that UTF-8 can hold, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def split_named(word: str) -> str:
    """Return which split a word stands for, or an empty word."""
    return next((split for split, words in SPLITS.items() if word.lower() in words), "")


def first_folder(source: Path, *places: str, holds: str) -> Path | None:
    """Return the first of these folders in a source that holds a file of this name."""
    return next((source / place for place in places if (source / place / holds).exists()), None)


def read_text(path: Path, notes: list[str]) -> str:
    """Return a text in UTF-8, or else in Latin-1, of which a note is made.

    Raises:
        InputError: it is too large.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAXIMUM_TEXT_BYTES:
        raise InputError(
            f"{path} holds more than {MAXIMUM_TEXT_BYTES:,} bytes of text: split it, or give a .parquet file"
        )
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append(f"{shown(path.name)} is not in UTF-8: it was read as Latin-1")
        return content.decode("latin-1")


def not_published(files: Mapping[Path, str], what: str) -> list[str]:
    """Return a sentence on each file, of those that are there, whose md5 is not the published one."""
    wrong = [path.name for path, digest in files.items() if path.is_file() and _md5(path) != digest]
    return [f"{listed(wrong)}: not the published {what}, for the md5 differs"] if wrong else []


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fenced(root: Path) -> Callable[[str], str]:
    """Return a function from a path in ``root`` to the reason why it must not be opened, or an empty word.

    What leads out of ``root``, by its name or by a link, is somebody else's file.
    """
    real = os.path.realpath(root)

    def inside(path: str) -> bool:
        return os.path.commonpath((real, path)) == real

    @cache
    def folder_inside(folder: str) -> bool:
        return inside(os.path.realpath(folder))

    def reason(name: str) -> str:
        if "\0" in name:
            return "its name is not one of a file"
        path = os.path.join(real, name)
        if not inside(os.path.normpath(path)) or not folder_inside(os.path.dirname(path)):
            return "leads out of the folder"
        if os.path.islink(path) and not inside(os.path.realpath(path)):
            return "is a link out of the folder"
        return ""

    return reason


def numbered(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Return labels as int64 numbers of their classes; -1 for what is none."""
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers.get(label, -1) for label in labels], np.int64)


def same_word(name: str) -> str:
    """Return what two names share that a person, or another file system, takes for one."""
    return unicodedata.normalize("NFKC", name).casefold().strip()
