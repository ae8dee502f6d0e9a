"""A data set without its poison, and an image folder of it.

Accused pictures are kept under the class that they show where that is known, and left out where it is not: the rule by
which purification trains. Nothing changes in what it is made from.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pud.artifacts.detection import MAXIMUM_BYTES, load_detection
from pud.artifacts.detection import TABLE as VERDICTS
from pud.base.errors import InputError, printable
from pud.base.files import finished_folder, sha256, within, write_json
from pud.base.progress import say, track
from pud.data.images import LabelledImages
from pud.data.readers import open_split
from pud.data.readers.npy import MINIMUM_IMAGES, write_slices
from pud.defences.selection import shows_another_class
from pud.detectors.contract import CLEAN, POISONED, UNSURE, Detection
from pud.exchange.importing import TABLE
from pud.exchange.pictures.contract import fenced, listed

PICTURES = TABLE  # beside the arrays of a split: where each image comes from
COLUMNS = ["index", "name", "width", "height", "duplicate_of"]
CHANGES, CHANGES_TEXT = "changes.parquet", "changes.csv"
REMOVED, RELABELLED, KEPT = "removed", "relabelled", "kept"
FOLDER_FORMAT, FOLDER_MARK = "pud-pictures/1", "cleaned.json"
SLICE_BYTES = 16 << 20
MAXIMUM_NAME, MAXIMUM_SUFFIX, MAXIMUM_PATH = 200, 8, 4096  # bytes of a file's name that we choose, of a path at all
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


def write_cleaned(dataset: Path, detection: Path, out: Path) -> dict[str, float]:
    """Write the data set ``out``, what a detection leaves of ``dataset``, and return how many images became what.

    In it ``changes.parquet`` and ``changes.csv`` say who was removed, who was relabelled, of whom detection was unsure,
    and why. Test images are copied. Images pass in slices.

    Raises:
        InputError: the detection is about other images, or leaves nothing.
    """
    train, pictures = open_split(dataset / "train"), read_pictures(dataset / "train")
    found, _ = load_detection(detection, train.labels)
    relabelled = shows_another_class(found, train.labels)
    removed = (found.verdict == POISONED) & ~relabelled
    kept, labels = np.flatnonzero(~removed), np.where(relabelled, found.inferred_label, train.labels)
    if len(kept) < MINIMUM_IMAGES:
        raise InputError(f"{detection} leaves {len(kept)} images of {dataset}: no data set can be made of them")
    with finished_folder(out, CHANGES, dataset, detection) as folder:
        by = f"cleaned by detection {sha256(detection / VERDICTS)} of "
        _write(folder / "train", train, kept, labels[kept], pictures, by)
        if (dataset / "test").exists():
            test = open_split(dataset / "test")
            every = np.arange(len(test.labels))
            _write(folder / "test", test, every, test.labels, read_pictures(dataset / "test"), "")
        changes = _changes(found, train, relabelled, pictures)
        changes.to_parquet(folder / CHANGES, index=False)
        _as_text(changes).to_csv(folder / CHANGES_TEXT, index=False)
    if len(gone := np.setdiff1d(train.labels, labels[kept])):
        names = ", ".join(train.classes[label] for label in gone)
        say(f"clean: nothing is left of class {names}, so that no model can learn it from {out}")
    return {
        "kept_images": len(kept),
        "removed_images": int(removed.sum()),
        "relabelled_images": int(relabelled.sum()),
        "unsure_images": int((found.verdict == UNSURE).sum()),
    }


def read_pictures(split: Path) -> pd.DataFrame | None:
    """Return the table of pictures beside a split's arrays, a row an image; None where there is none.

    duplicate_of: the index of the first of images that are nearly the same, -1 of that and of all others.

    Raises:
        InputError: it is not what ``pud import`` writes.
    """
    path = split / PICTURES
    if not path.is_file():
        return None
    try:
        schema = pq.read_schema(within(path, MAXIMUM_BYTES))
        if any(pa.types.is_nested(schema.field(name).type) for name in COLUMNS):
            raise ValueError("a column holds no plain values")
        # names stay in their dictionary: a long one that many rows name would fill the memory
        table = pq.read_table(path, columns=COLUMNS, read_dictionary=["name"]).to_pandas(ignore_metadata=True)
        images = len(open_split(split, of_any=True).labels)
        if len(table) != images or (table["index"] != np.arange(images)).any():
            raise ValueError(f"it is about {len(table)} images, of which {images} are there")
        if any(not isinstance(name, str) or len(name) > MAXIMUM_PATH for name in table["name"].cat.categories):
            raise ValueError("a name is no text of at most 4,096 characters")
        table["duplicate_of"] = pd.to_numeric(table["duplicate_of"]).fillna(-1).astype(np.int64)
        if table["name"].isna().any():
            raise ValueError("a name is missing")
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise InputError(f"{path} is no table of pictures ({error}): import them again, or remove it") from error
    return table


def _write(
    folder: Path, split: LabelledImages, rows: np.ndarray, labels: np.ndarray, pictures: pd.DataFrame | None, by: str
) -> None:
    """Write some rows of a split under labels (len(rows),), and their rows of the table of pictures."""
    step = max(1, SLICE_BYTES // split.images[0].size)
    starts = track(range(0, len(rows), step), f"write {folder.name}")
    slices = (split.images[rows[start : start + step]] for start in starts)
    shape, source = split.images.shape[1:], f"{by}images {split.digest}, labels {split.labels_digest}"
    write_slices(folder, slices, labels, shape=shape, classes=split.classes, name=split.name, source=source)
    if pictures is not None:
        _of_rows(pictures, rows).to_parquet(folder / PICTURES, index=False)


def _of_rows(pictures: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Return the table of some of its images, numbered anew; of duplicates whose first is gone the next is first."""
    chosen = pictures.iloc[rows].reset_index(drop=True)
    first = chosen["duplicate_of"].where(chosen["duplicate_of"] >= 0, chosen["index"]).to_numpy()
    leader = chosen.index.to_series().groupby(first).transform("min")
    chosen["index"] = np.arange(len(chosen))
    chosen["duplicate_of"] = leader.where(leader != chosen["index"], -1)
    return chosen


def _changes(
    found: Detection, split: LabelledImages, relabelled: np.ndarray, pictures: pd.DataFrame | None
) -> pd.DataFrame:
    """Return a row for each image that was accused or is doubtful."""
    rows = np.flatnonzero(found.verdict != CLEAN)
    names, accused, moved = np.array(split.classes, object), found.verdict[rows] == POISONED, relabelled[rows]
    shown = np.where(moved, names[found.inferred_label[rows]], "")
    return pd.DataFrame(
        {
            "index": rows,
            "name": "" if pictures is None else pictures["name"].to_numpy(object)[rows],
            "class": names[split.labels[rows]],
            "action": np.select([moved, accused], [RELABELLED, REMOVED], KEPT),
            "new class": shown,
            "posterior": found.posterior[rows],
            "suspicion": found.suspicion[rows],
            "reason": [_reason(found, split, row, moves) for row, moves in zip(rows.tolist(), moved, strict=True)],
        }
    )


def _reason(found: Detection, split: LabelledImages, row: int, moves: bool) -> str:
    label, shown, sure = split.labels[row], found.inferred_label[row], found.verdict[row] == POISONED
    words = [f"{'accused' if sure else 'unsure, not accused'}: poisoned with probability {found.posterior[row]:.3f}"]
    words += ["the backdoor leads to its class"] if label in found.target_labels else []
    if moves:
        words.append(f"it shows {split.classes[shown]}")
    elif sure:
        words.append("its label is right, but it carries a trigger" if shown == label else "what it shows is not known")
    return "; ".join(words)


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts are lines that a terminal shows and a spreadsheet does not compute."""

    def plain(text: str) -> str:
        return ("'" if text.startswith(FORMULA) else "") + printable(text)

    return table.assign(**{name: table[name].map(plain) for name in ("name", "class", "new class", "reason")})


# ----------------------------------------------------------------------------------------------------- an image folder


def write_pictures_back(cleaned: Path, source: Path, out: Path) -> dict[str, float]:
    """Write the pictures of a cleaned data set as an image folder: their files in ``source``, by class, as they are.

    ``out`` gets a folder a class, below ``train`` and ``test`` where test pictures have names too.

    Raises:
        InputError: before anything is written: the data set does not name its pictures, or names one that is no file
            below ``source``, through links too.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder: give the image folder from which {cleaned} was imported")
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out} lies in {source}, where it would be taken for a class: name a folder outside")
    tables = {name: table for name in ("train", "test") if (table := read_pictures(cleaned / name)) is not None}
    if "train" not in tables:
        raise InputError(f"{cleaned / 'train' / PICTURES} is missing: only imported pictures can be written back")
    splits = {name: open_split(cleaned / name) for name in tables}
    fence, copies, lost = fenced(source), list[tuple[Path, Path]](), list[str]()
    for split, table in tables.items():
        top = Path(split if len(tables) > 1 else "")
        for name, place in zip(table["name"], _places(table["name"], splits[split]), strict=True):
            if original := _original(source, name, fence):
                copies.append((original, top / place))
            else:
                lost.append(name)
    if lost:
        raise InputError(
            f"{source} has not {len(lost)} pictures of {cleaned}, or they lie outside of it: {listed(lost)}; give the "
            "image folder from which they were imported"
        )
    with finished_folder(out, FOLDER_MARK, cleaned, source) as folder:
        for original, place in track(copies, "write pictures"):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, folder / place)
        digests = {name: {"images": one.digest, "labels": one.labels_digest} for name, one in splits.items()}
        write_json(folder / FOLDER_MARK, {"format": FOLDER_FORMAT, **digests})
    return {"pictures": len(copies)}


def _original(source: Path, name: str, fence: Callable[[str], str]) -> Path | None:
    """Return the file in ``source`` that an imported picture was, if there is one and it may be opened.

    Bytes of its name that are no text were imported as ``\\xff``.
    """
    for one in (name, os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", _byte, os.fsencode(name)))):
        if not fence(one) and os.path.isfile(source / one):
            return source / one
    return None


def _byte(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode())


def _places(names: Iterable[str], split: LabelledImages) -> Iterator[Path]:
    """Yield a path for each picture, the folder of its class and a name, which no other picture has."""
    taken: set[str] = set()
    folders = [_free(name, f"-{label}", taken) for label, name in enumerate(split.classes)]
    within_class: list[set[str]] = [set() for _ in folders]
    for index, (name, label) in enumerate(zip(names, split.labels, strict=True)):
        yield Path(folders[label]) / _free(name.rpartition("/")[2], f"-{index}", within_class[label])


def _free(name: str, otherwise: str, taken: set[str]) -> str:
    """Return a file name like ``name``, whatever that is, that is not taken in any case of letters, and take it.

    otherwise: put at the end of one that is.
    """
    stem, suffix = os.path.splitext("".join(one if one.isprintable() and one not in "/\\" else "_" for one in name))
    if len(suffix.encode()) > MAXIMUM_SUFFIX:
        stem, suffix = stem + suffix, ""
    stem = stem.encode()[:MAXIMUM_NAME].decode(errors="ignore")
    stem = f"_{stem}" if not stem or stem.startswith(".") else stem
    while (stem + suffix).casefold() in taken:
        stem += otherwise
    taken.add((stem + suffix).casefold())
    return stem + suffix
