"""ImageNet (ILSVRC 2012) as its folders are laid out, and Tiny-ImageNet (Le and Yang 2015) as published.

A folder of training pictures for each synset (``n01440764``); validation pictures in such folders too, or in one folder
with a table of their synsets. Validation serves as the test split: the test pictures have no public labels.
"""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from pud.exchange.pictures.contract import Form, Pictures, fenced, not_published, numbered, read_text, text_of
from pud.exchange.pictures.folder import class_folders, files_split, subfolders

SYNSET = re.compile(r"n\d{8}")
TINY = {"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"}  # md5 that loaders of it state
LARGE = {"ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf"}  # the rest is too large to be read again
PLACES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", ".", "tiny-imagenet-200")


def _root(source: Path) -> Path | None:
    for root in (source / place for place in PLACES):
        folders = subfolders(root / "train")
        if folders and all(SYNSET.fullmatch(folder.name) for folder in folders):
            return root
    return None


def _words(root: Path, source: Path, found: Pictures) -> dict[str, str]:
    """Return the first word for each synset, where a file tells them."""
    words = {}
    for path in (root / "words.txt", source / "words.txt", source / "LOC_synset_mapping.txt"):
        for line in read_text(path, found.notes).splitlines() if path.is_file() else ():
            synset, _, rest = line.replace("\t", " ", 1).partition(" ")
            words[synset] = rest.split(",")[0].strip()
    return words


def _synsets(root: Path, source: Path, found: Pictures) -> dict[str, str]:
    """Return the synset of each validation picture by its name, where a table tells them."""
    if (tiny := root / "val/val_annotations.txt").is_file():
        rows = csv.reader(io.StringIO(read_text(tiny, found.notes)), delimiter="\t")
        return {f"images/{row[0]}": row[1] for row in rows if len(row) > 1}
    if (large := source / "LOC_val_solution.csv").is_file():
        solutions = csv.reader(io.StringIO(read_text(large, found.notes)))
        return {f"{row[0]}.JPEG": row[1].split()[0] for row in solutions if len(row) > 1 and SYNSET.match(row[1])}
    return {}


def _open(source: Path, published: Mapping[str, str], what: str) -> Pictures:
    root = _root(source)
    assert root, source
    synsets = [folder.name for folder in subfolders(root / "train")]
    found = Pictures({}, ())
    words = _words(root, source, found)
    classes = tuple(f"{synset} {words[synset]}" if synset in words else synset for synset in synsets)
    found.splits["train"] = class_folders(root / "train", source, synsets, found)
    validation = root / "val"
    if any(SYNSET.fullmatch(folder.name) for folder in subfolders(validation)):
        found.splits["val"] = class_folders(validation, source, synsets, found)
    elif table := _synsets(root, source, found):
        fence = fenced(source)
        inside = [f"{validation.relative_to(source).as_posix()}/{name}" for name in table]
        reasons = {name: reason for name in inside if (reason := fence(name))}
        kept = [name for name in inside if name not in reasons]
        found.skipped.extend((text_of(name), reason) for name, reason in reasons.items())
        labels = numbered([of for name, of in zip(inside, table.values(), strict=True) if name not in reasons], synsets)
        found.splits["val"] = files_split(source, kept, labels)
    elif validation.is_dir():
        found.notes.append("val has no folders of classes, and no table tells its labels: it was left out")
    archives = {folder / name: md5 for folder in (source, source.parent) for name, md5 in published.items()}
    notes = [*found.notes, *not_published(archives, what)]
    return Pictures(found.splits, classes, notes, found.skipped)


def reads_tiny(source: Path) -> bool:
    """Tell whether there are synsets and the list of them."""
    root = _root(source)
    return root is not None and (root / "wnids.txt").is_file()


def open_tiny(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures of Tiny-ImageNet."""
    return _open(source, TINY, "Tiny-ImageNet")


def reads_imagenet(source: Path) -> bool:
    """Tell whether all training folders are synsets."""
    return _root(source) is not None and not reads_tiny(source)


def open_imagenet(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures of ImageNet, or of a part of its classes."""
    return _open(source, LARGE, "ImageNet")


FORMS = {"tiny-imagenet": Form(reads_tiny, open_tiny), "imagenet": Form(reads_imagenet, open_imagenet)}
