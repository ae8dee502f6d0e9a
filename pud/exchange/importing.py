"""From pictures as other people keep them to a data set: decoded, brought to one size, counted and looked at."""

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pud.base.config import Count, Range, Share, as_parameters
from pud.base.errors import InputError
from pud.base.files import finished_folder, write_json
from pud.base.progress import track
from pud.data.readers.npy import FILES, MINIMUM_IMAGES, describe_split, describe_unlabelled
from pud.exchange.contact_sheet import contact_sheet
from pud.exchange.import_duplicates import near_duplicates
from pud.exchange.pictures import FORMS, form_of
from pud.exchange.pictures.contract import SHOWN_NAMES, Pictures, Raw, Split, listed, same_word, shown

if TYPE_CHECKING:
    from pud.exchange.import_decoding import Batch, Decoded, Target

FORMAT = "pud-import/1"
MARK = "import.json"
TABLE = "pictures.parquet"
SHEET = "contact-sheet.jpg"
BATCH = 32  # pictures that a worker decodes at a time
FEW = 64  # pictures up to which no processes are started
NO_LABELS = "without labels"  # stands for the classes of pictures that have none
CHOICES = {"fit": ("stretch", "crop"), "background": ("white", "black"), "channels": (0, 1, 3)}

ANY = Range(-1e30, 1e30, "that is finite")


@dataclass(frozen=True)
class ImportConfig:
    """How pictures become a data set."""

    unlabelled: Annotated[bool, "Leave out labels, if there are any: pictures that a scan alone may look at."] = False
    size: Annotated[
        int, Range(0, 4096, "from 0 to 4096"), "Side in pixels; 0: as they are, or the median if they differ."
    ] = 0
    size_cap: Annotated[Count, "Side that is not exceeded where none is given."] = 224
    fit: Annotated[str, "How another shape is brought to a square: stretch, or crop to the middle."] = "stretch"
    channels: Annotated[int, "1: grey, 3: colour, 0: grey if all pictures are."] = 0
    background: Annotated[str, "What is put behind transparent pictures: white or black."] = "white"
    upright: Annotated[bool, "Turn pictures as their EXIF data say."] = True
    regions: Annotated[bool, "Cut out the region of interest where the source states one."] = False
    value_range: Annotated[
        tuple[Annotated[float, ANY], ...], "Black and white in arrays that are not bytes; empty: found."
    ] = ()
    test_share: Annotated[
        float, Range(0, 0.9, "from 0 to 0.9"), "Share to draw as test pictures if the source has none."
    ] = 0.0
    skipped_limit: Annotated[Share, "Share of broken pictures up to which these are skipped."] = 0.05
    maximum_pixels: Annotated[Count, "Pixels that a picture may claim; it is not decoded if it claims more."] = (
        50_000_000
    )
    near: Annotated[float, "How far two near-duplicates may differ, of 255, in a small thumbnail."] = 2.0
    looked_at: Annotated[Count, "Pictures whose sizes are looked at to choose one size."] = 2000
    sheet_pictures: Annotated[int, Range(1, 100, "from 1 to 100"), "Pictures of each class on the contact sheet."] = 10
    sheet_classes: Annotated[int, Range(1, 800, "from 1 to 800"), "Classes on the contact sheet."] = 100
    workers: Annotated[int, "Processes that decode; 0: one for each processor."] = 0


def import_pictures(source: Path, out: Path, config: ImportConfig, *, seed: int, form: str = "") -> dict[str, Any]:
    """Write the pictures of ``source`` as a data set into the folder ``out``, and return what its import.json says.

    The folder gets ``train`` and perhaps ``test``, each with ``pictures.parquet`` beside its arrays, ``import.json``
    and ``contact-sheet.jpg``. An older import is replaced, anything else is not.

    Args:
        form: one of ``FORMS``; empty: the one that the source's files tell.
        seed: of what is drawn as test pictures.

    Raises:
        InputError: the source, or too much in it, cannot be used.
    """
    source, out = Path(source), Path(out)
    for name, allowed in CHOICES.items():
        if (value := getattr(config, name)) not in allowed:
            raise InputError(f"{name} is {value!r}: choose one of {', '.join(map(str, allowed))}")
    form = form or form_of(source, unlabelled=config.unlabelled)
    if not config.unlabelled and not FORMS.find(form).reads(source):
        raise InputError(f"{source} is not of the form {form}: leave the form out, and it is found")
    if source.is_dir() and source.resolve() in out.resolve().parents:
        raise InputError(f"{out} lies in {source}, and would be taken for pictures: name a folder outside of it")
    with finished_folder(out, MARK, source) as folder, TemporaryDirectory(dir=folder) as scratch:
        how = FORMS.find(form)
        opened = how.unlabelled if config.unlabelled and how.unlabelled else how.open
        found = opened(source.resolve(), Path(scratch), config.value_range)
        if config.unlabelled:
            found = _without_labels(found)
        _check(found, source)
        splits = _parts(found, config, seed)
        target = _target(splits["train"], config, found.notes)
        limit = config.skipped_limit * (sum(len(split.names) for split in splits.values()) + len(found.skipped))
        whole = source.resolve()
        names = {
            "name": whole.stem if whole.is_file() else whole.name,
            "source": f"{whole.name}, read as {form} by pud import",
        }
        told = {}
        for name, split in splits.items():
            (folder / name).mkdir()
            kept = _write_images(folder / name / "images.npy", split, target, config, found, limit)
            if name == "test" and kept.count < MINIMUM_IMAGES:
                rmtree(folder / name)
                found.notes.append(f"{kept.count} test pictures are too few: they were left out")
                continue
            labels = split.labels[kept.rows[: kept.count]]
            if config.unlabelled:
                describe_unlabelled(folder / name, **names)
            else:
                describe_split(folder / name, labels, classes=found.classes, **names)
            told[name] = _tell(folder / name, split, kept, labels, config, found)
        _check_counts(told["train"]["counts"], found)
        single = [name for name, count in zip(found.classes, told["train"]["counts"], strict=True) if count == 1]
        if single:
            found.notes.append(f"of one picture each, of which little can be learned or said: {listed(single)}")
        content = {
            "format": FORMAT,
            "form": form,
            "source": whole.name,
            "settings": as_parameters(config),
            "seed": seed,
            "classes": [] if config.unlabelled else list(found.classes),
            "shape": [target.channels, target.height, target.width],
            "splits": told,
            "skipped": [{"name": name, "reason": reason} for name, reason in found.skipped],
            "notes": found.notes,
        }
        write_json(folder / MARK, content)
        images = np.load(folder / "train" / FILES[0], mmap_mode="r")
        labels = np.zeros(len(images), int) if config.unlabelled else np.load(folder / "train" / FILES[1])
        contact_sheet(
            folder / SHEET,
            images,
            labels,
            found.classes,
            per_class=config.sheet_pictures,
            most_classes=config.sheet_classes,
        )
    return content


def _check(found: Pictures, source: Path) -> None:
    """Refuse what is no data set, before anything is decoded."""
    if "train" not in found.splits or not found.splits["train"].names:
        why = f"; {_reasons(found.skipped)}" if found.skipped else ""
        raise InputError(f"{source} holds no training picture that can be used{why}: give pictures with labels")
    if found.classes == (NO_LABELS,):
        return
    words: dict[str, str] = {}
    for name in found.classes:
        if (other := words.setdefault(same_word(name), name)) is not name:
            raise InputError(
                f"{source} has classes {shown(other)} and {shown(name)}, which are easily taken for one another: "
                "rename one, or make them one class"
            )
    if len(found.classes) < 2:
        raise InputError(f"{source} has one class, {listed(found.classes)}: a classifier tells two or more apart")
    for part, split in found.splits.items():
        outside = np.flatnonzero((split.labels < 0) | (split.labels >= len(found.classes)))
        if len(outside):
            raise InputError(
                f"{source} has {len(outside):,} {part} labels outside of its {len(found.classes)} classes, of "
                f"{listed(split.names[index] for index in outside.tolist())}: correct the labels or the classes' names"
            )
    _check_counts(np.bincount(found.splits["train"].labels, minlength=len(found.classes)).tolist(), found)


def _without_labels(found: Pictures) -> Pictures:
    """Return the training pictures, or the first others that are there, without their labels."""
    name = "train" if "train" in found.splits else next(iter(found.splits), "train")
    if others := [other for other, split in found.splits.items() if other != name and len(split.names)]:
        found.notes.append(f"the pictures of {listed(others)} were left out")
    train = found.splits.get(name)
    splits = {"train": replace(train, labels=np.zeros_like(train.labels))} if train else {}
    return replace(found, splits=splits, classes=(NO_LABELS,))


def _check_counts(counts: list[int], found: Pictures) -> None:
    if empty := [name for name, count in zip(found.classes, counts, strict=True) if not count]:
        why = f" ({_reasons(found.skipped)})" if found.skipped else ""
        raise InputError(
            f"no training picture is left of class {listed(empty)}{why}: add some, or remove the class and number the "
            "labels anew"
        )


def _parts(found: Pictures, config: ImportConfig, seed: int) -> dict[str, Split]:
    """Return the training and, if there are such, the test pictures."""
    train = found.splits["train"]
    given = next((name for name in ("test", "val") if name in found.splits and len(found.splits[name].names)), "")
    if given:
        if given == "test" and "val" in found.splits:
            found.notes.append("the pictures for validation were left out")
        if config.test_share:
            found.notes.append(f"no test pictures were drawn, for the source has some ({given})")
        if given == "val":
            found.notes.append("the pictures for validation serve as test pictures")
        return {"train": train, "test": found.splits[given]}
    if not config.test_share or config.unlabelled:
        return {"train": train}
    order = np.random.default_rng(seed).permutation(len(train.names))
    order = order[np.argsort(train.labels[order], kind="stable")]  # by class, drawn in each
    starts = np.searchsorted(train.labels[order], train.labels[order])
    counts = np.bincount(train.labels)[train.labels[order]]
    drawn = np.arange(len(order)) - starts < np.minimum((config.test_share * counts).round(), counts - 1)
    found.notes.append(
        f"{drawn.sum():,} test pictures were drawn, {100 * config.test_share:g} % of each class, seed {seed}"
    )
    return {"train": _rows(train, np.sort(order[~drawn])), "test": _rows(train, np.sort(order[drawn]))}


def _rows(split: Split, rows: np.ndarray) -> Split:
    """Return some pictures of a split."""
    regions = None if split.regions is None else split.regions[rows]
    return Split([split.names[row] for row in rows], split.labels[rows], lambda i: split.picture(int(rows[i])), regions)


class _Decoding(Dataset["Decoded | str"]):
    """The pictures of a split as they are wanted, or the reasons why there are none."""

    def __init__(self, split: Split, target: "Target", config: ImportConfig) -> None:
        self.split, self.target, self.config = split, target, config

    def __len__(self) -> int:
        return len(self.split.names)

    def __getitem__(self, index: int) -> "Decoded | str":
        from pud.exchange.import_decoding import decode, reason_of

        raw: Raw | None = None
        try:
            raw = self.split.picture(index)
            return decode(raw, _region(self.split, index, self.config), self.target)
        except Exception as error:  # a stranger's file may raise any
            return reason_of(error, raw)


def _batches(pictures: _Decoding, workers: int) -> Iterator["Batch"]:
    """Yield the pictures in their order; processes that stay a few batches ahead decode them, if they are many."""
    from pud.exchange.import_decoding import batch_of

    workers = (workers or len(os.sched_getaffinity(0))) if len(pictures) > FEW else 0
    try:
        yield from DataLoader(
            pictures,
            BATCH,
            num_workers=workers,
            collate_fn=batch_of,
            multiprocessing_context="fork" if workers else None,
            generator=torch.Generator(),  # the one of all is left alone
            worker_init_fn=lambda _: warnings.filterwarnings("ignore", module="PIL"),  # what is broken is listed
        )
    except RuntimeError as error:
        raise InputError(
            f"a process that decodes pictures died ({error}): it lacked memory, or a picture broke the decoder; try "
            "fewer workers and maximum_pixels"
        ) from error


def _region(split: Split, index: int, config: ImportConfig) -> np.ndarray | None:
    return split.regions[index] if config.regions and split.regions is not None else None


def _target(split: Split, config: ImportConfig, notes: list[str]) -> "Target":
    """Return the one size and the colours of all pictures, from the headers of some of them taken evenly."""
    from pud.exchange.import_decoding import Target, look

    side = config.size or config.size_cap
    target = Target(
        config.channels or 3, side, side, config.fit, config.background, config.upright, config.maximum_pixels
    )
    if split.regions is not None and not config.regions:
        notes.append("the source states regions of interest: --regions true cuts them out")
    if config.size and config.channels:
        return target

    def seen(index: int) -> tuple[int, int, bool] | None:
        try:
            return look(split.picture(index), _region(split, index, config), target)
        except Exception:  # counted when it is decoded
            return None

    chosen = np.unique(np.linspace(0, len(split.names) - 1, config.looked_at).astype(int)).tolist()
    found = [one for one in map(seen, track(chosen, "sizes")) if one]
    if not found:
        return target  # nothing can be decoded, as is said then
    if not config.channels:
        target = replace(target, channels=1 if all(grey for *_, grey in found) else 3)
    if not config.size:
        height, width, said = _size([(width, height) for width, height, _ in found], config.size_cap)
        target = replace(target, height=height, width=width)
        if said:
            notes.append(f"{said}, {'cropped to the middle' if config.fit == 'crop' else 'stretched where not square'}")
    return target


def _size(sizes: list[tuple[int, int]], cap: int) -> tuple[int, int, str]:
    """Return height and width for pictures of these sizes (width, height), and what was chosen if it is not theirs."""
    if len(set(sizes)) == 1 and max(sizes[0]) <= cap:
        return sizes[0][1], sizes[0][0], ""
    shorter = int(median(map(min, sizes)))
    side = min(shorter, cap)
    why = (
        f"the cap (the median of the shorter sides is {shorter})"
        if side < shorter
        else "the median of the shorter sides"
    )
    return side, side, f"all pictures are brought to {side}x{side}, {why}"


class _Kept:
    """What is known of the pictures that were written, in their order. rows: their numbers in the source's split."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self.rows = np.empty(most, np.int64)
        self.sizes = np.empty((most, 2), np.int32)
        self.thumbnails = np.empty((most, 8, 9), np.uint8)
        self.means = np.empty((most, 3), np.uint8)
        self.traits: Counter[str] = Counter()

    def add(self, start: int, batch: "Batch") -> None:
        """Note the pictures of a batch that begins at row ``start``."""
        new = slice(self.count, self.count + len(batch.places))
        self.rows[new], self.sizes[new] = start + batch.places, batch.sizes
        self.thumbnails[new], self.means[new] = batch.thumbnails, batch.means
        self.traits.update(batch.traits)
        self.count = new.stop


def _write_images(
    path: Path, split: Split, target: "Target", config: ImportConfig, found: Pictures, limit: float
) -> _Kept:
    """Decode a split into an array, batch by batch; what is broken is skipped.

    Raises:
        InputError: more than ``limit`` are, in all splits so far.
    """
    count = len(split.names)
    kept = _Kept(count)
    with path.open("wb") as file:
        file.write(_header(0, target))  # of the same length whatever the count
        batches = _batches(_Decoding(split, target, config), config.workers)
        for number, batch in enumerate(track(batches, f"import {path.parent.name}", -(-count // BATCH))):
            file.write(batch.pixels.data)
            kept.add(number * BATCH, batch)
            found.skipped.extend((split.names[number * BATCH + place], reason) for place, reason in batch.broken)
            if len(found.skipped) > limit:
                raise InputError(
                    f"at least {len(found.skipped):,} pictures cannot be used, more than "
                    f"{100 * config.skipped_limit:g} % (--skipped-limit): {_reasons(found.skipped)}; mend or remove "
                    "them, or allow more"
                )
        file.seek(0)
        file.write(_header(kept.count, target))
    return kept


def _header(count: int, target: "Target") -> bytes:
    """Return how an array of bytes begins; NumPy leaves room in it for any count."""
    buffer = io.BytesIO()
    shape = (count, target.channels, target.height, target.width)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _tell(
    folder: Path, split: Split, kept: _Kept, labels: np.ndarray, config: ImportConfig, found: Pictures
) -> dict[str, Any]:
    """Write the table of the pictures of a split, and return what import.json says of them."""
    import pyarrow
    import pyarrow.parquet

    count = kept.count
    first = near_duplicates(kept.thumbnails[:count], kept.means[:count], config.near)
    widths, heights = kept.sizes[:count].T
    columns = {
        "index": np.arange(count),
        "name": [split.names[row] for row in kept.rows[:count]],
        "width": widths,
        "height": heights,
        "duplicate_of": first,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / TABLE)
    copies = np.flatnonzero(first >= 0)
    return {
        "counts": np.bincount(labels, minlength=len(found.classes)).tolist(),
        "traits": dict(sorted(kept.traits.items())),
        "near_duplicates": len(copies),
        "near_duplicates_of_another_class": int((labels[copies] != labels[first[copies]]).sum()),
        "widths": [int(widths.min()), int(np.median(widths)), int(widths.max())],
        "heights": [int(heights.min()), int(np.median(heights)), int(heights.max())],
    }


def _reasons(skipped: list[tuple[str, str]]) -> str:
    """Return the first of what was skipped, in words."""
    more = f" and {len(skipped) - SHOWN_NAMES:,} more" if len(skipped) > SHOWN_NAMES else ""
    return "; ".join(f"{shown(name)} {reason}" for name, reason in skipped[:SHOWN_NAMES]) + more


def summary(content: dict[str, Any]) -> str:
    """Return what an import.json says, in a few lines for people."""
    classes, (channels, height, width) = content["classes"], content["shape"]
    lines = [
        f"{content['source']}, read as {content['form']}: {f'{len(classes)} classes' if classes else NO_LABELS}, "
        f"{width}x{height} in "
        f"{'grey' if channels == 1 else 'colour'}"
    ]
    for name, split in content["splits"].items():
        counts = split["counts"]
        few, many = int(np.argmin(counts)), int(np.argmax(counts))
        (low_w, _, high_w), (low_h, _, high_h) = split["widths"], split["heights"]
        were = f"{low_w}x{low_h}" if (low_w, low_h) == (high_w, high_h) else f"{low_w}x{low_h} to {high_w}x{high_h}"
        if not classes:
            sizes = ""
        elif counts[few] == counts[many]:
            sizes = f"; {counts[few]:,} of each class"
        else:
            sizes = f"; classes of {counts[few]:,} ({shown(classes[few])}) to {counts[many]:,} ({shown(classes[many])})"
        lines.append(f"{name}: {sum(counts):,} pictures of {were}{sizes}")
        lines += [f"  {number:,} {trait}" for trait, number in split["traits"].items()]
        if copies := split["near_duplicates"]:
            other = split["near_duplicates_of_another_class"]
            also = f", {other:,} of these with another label" if classes else ""
            lines.append(f"  {copies:,} near-duplicates of earlier ones{also}")
    if content["skipped"]:
        pairs = [(one["name"], one["reason"]) for one in content["skipped"]]
        lines.append(f"skipped: {len(pairs):,}: {_reasons(pairs)}")
    return "\n".join([*lines, *(f"note: {note}" for note in content["notes"])])
