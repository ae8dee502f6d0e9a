"""A folder for each class, with pictures in it or in folders below: ``class/name.jpg``, perhaps ``train/class/...``."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pud.base.errors import InputError
from pud.exchange.pictures.contract import SUFFIXES, Form, Pictures, Raw, Split, fenced, shown, split_named, text_of


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, links to some too, but not hidden ones, by name."""
    found = (path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
    return sorted(path for path in found if not path.name.startswith((".", "__MACOSX")))


def walk(folder: Path, source: Path, fence: Callable[[str], str], found: Pictures) -> Iterator[str]:
    """Yield the pictures below a folder, relative to the source, by name; what must not be opened is skipped."""

    def unreadable(error: OSError) -> None:
        found.skipped.append(
            (text_of(os.path.relpath(error.filename, source)), f"the folder cannot be read: {error.strerror}")
        )

    if folder.is_symlink():
        found.skipped.append((text_of(folder.name), "is a link to a folder"))
        return
    names = []
    for top, below, files in os.walk(folder, onerror=unreadable):
        linked = [name for name in below if os.path.islink(os.path.join(top, name))]
        found.skipped.extend(
            (text_of(os.path.relpath(os.path.join(top, name), source)), "is a link to a folder") for name in linked
        )
        visible = [name for name in files if not name.startswith(".")]
        names += [os.path.join(top, name) for name in visible if os.path.splitext(name)[1].lower() in SUFFIXES]
    for path in sorted(names):
        name = os.path.relpath(path, source)
        kind = os.lstat(path).st_mode
        reason = fence(name) if stat.S_ISLNK(kind) else "" if stat.S_ISREG(kind) else "is not a file"
        if reason:
            found.skipped.append((text_of(name), reason))
        else:
            yield name


def files_split(
    source: Path, names: list[str], labels: list[int] | np.ndarray, regions: np.ndarray | None = None
) -> Split:
    """Return a split of files, named relative to the source."""

    def picture(index: int) -> Raw:
        return source / names[index]

    return Split([text_of(name) for name in names], np.asarray(labels, np.int64), picture, regions)


def class_folders(root: Path, source: Path, classes: list[str], found: Pictures) -> Split:
    """Return the pictures in the folders of these classes, as one split.

    Raises:
        InputError: there is a folder of another class.
    """
    fence = fenced(source)
    names: list[str] = []
    labels: list[int] = []
    for folder in subfolders(root):
        if folder.name not in classes:
            raise InputError(
                f"{root} has a folder {shown(folder.name)}, and the training pictures no class of this name: rename or "
                "remove it"
            )
        before = len(names)
        names += walk(folder, source, fence, found)
        labels += [classes.index(folder.name)] * (len(names) - before)
    return files_split(source, names, labels)


def _splits(source: Path) -> dict[str, Path]:
    """Return the folders of the splits, if the source is parted into such."""
    found = {split_named(folder.name): folder for folder in subfolders(source)}
    return found if "train" in found and "" not in found else {}


def _root(source: Path) -> Path:
    """Return the folder in which the classes lie: what an archive held is often one folder in another."""
    while len(inner := subfolders(source)) == 1 and subfolders(inner[0]) and not inner[0].is_symlink():
        source = inner[0]
    return source


def reads(source: Path) -> bool:
    """Tell whether there is a folder in the source."""
    return bool(subfolders(source))


def open_folder(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures of all class folders; classes are in the order of their folders' names."""
    root = _root(source)
    parts = _splits(root) or {"train": root}
    folders = [folder.name for folder in subfolders(parts["train"])]
    found = Pictures({}, tuple(map(text_of, folders)))
    if root != source:
        found.notes.append(f"the classes lie in {shown(root.relative_to(source).as_posix())}")
    for name, part in parts.items():
        if subfolders(part):
            found.splits[name] = class_folders(part, source, folders, found)
        else:
            found.notes.append(f"{name} has no folders of classes: it was left out")
    loose = sum(path.suffix.lower() in SUFFIXES for part in parts.values() for path in part.iterdir() if path.is_file())
    if loose:
        found.notes.append(f"{loose:,} pictures lie beside the folders of classes, without a label: they were left out")
    return found


def open_unlabelled(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return all pictures below a folder, at any depth."""
    found = Pictures({}, ())
    names = list(walk(source, source, fenced(source), found))
    found.splits["train"] = files_split(source, names, [0] * len(names))
    return found


FORMS = {"folder": Form(reads, open_folder, general=True, unlabelled=open_unlabelled)}
