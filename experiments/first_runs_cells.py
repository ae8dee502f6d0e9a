"""The cells of the ledger: which there are, and how their data are made from a folder that ``pud import`` wrote."""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import plan
from experiments.splits import (
    ATTACKS,
    CLEAN_LABEL_RATES,
    DEVELOPMENT,
    EVALUATION,
    LARGE,
    PICTURES,
    RATES,
    SEEDS,
    SMALL,
    Pictures,
    Planted,
    use_of,
)
from pud.base.device import random_stream
from pud.base.errors import InputError
from pud.data.readers import open_split
from pud.data.readers.npy import write_split

INNOCENT = "innocent"
BARE = {"attack": "badnets", "mapping": plan.ONE, "rate": 0.0, "settings": (), "of_target": False, "supplier": ""}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell(plan.Cell):
    """One infected model, or an innocent one where the rate is 0.

    data: a name in splits.PICTURES. settings: of the attack. of_target: its rate is of the target class. supplier: see
    splits.Planted. classes: how many, 0: all. noise: share of the labels that are wrong by chance. duplicates: share of
    the images that are copies of others. imbalance: how many times as large the largest class is as the smallest; sizes
    fall from class to class by one factor.
    """

    data: str
    network: str = SMALL
    settings: tuple[tuple[str, float], ...] = ()
    of_target: bool = False
    supplier: str = ""
    classes: int = 0
    noise: float = 0.0
    duplicates: float = 0.0
    imbalance: int = 1

    @property
    def pictures(self) -> Pictures:
        return PICTURES[self.data]

    @property
    def name(self) -> str:
        attack = [self.trigger.replace(" ", "-"), self.mapping, f"{self.rate:g}"] if self.rate else [INNOCENT]
        odd = {"classes": self.classes, "noise": self.noise, "duplicates": self.duplicates}
        odd |= {"imbalance": self.imbalance - 1 and self.imbalance}
        parts = [self.data, self.network, *attack, *(f"{key}-{value:g}" for key, value in odd.items() if value)]
        return "_".join([*parts, f"s{self.seed}"])

    @property
    def clean_label(self) -> bool:
        return self.of_target

    @property
    def target_label(self) -> int:
        """Any class, another one for each seed and attack."""
        return zlib.crc32(f"{self.attack} {self.seed}".encode()) % (self.classes or self.pictures.classes)

    @property
    def use(self) -> str:
        return use_of(self.data, self.seed, self.attack if self.rate else "")

    @property
    def trigger(self) -> str:
        """Who plants what, how strong: what cells have in common that are not independent of each other."""
        words = [self.attack, *(f"{key}={value:g}" for key, value in self.settings), self.supplier]
        return " ".join(filter(None, words)) if self.rate else INNOCENT

    def twin(self) -> "Cell":
        """Return the cell of the same images without poison."""
        return dataclasses.replace(self, **BARE)

    def about(self) -> dict[str, Any]:
        """Return what the cell is, as the ledger says it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        rate_of = "target class" if fields.pop("of_target") else "training set"
        target = self.target_label if self.rate and self.mapping == plan.ONE else None
        return {
            "name": self.name,
            **fields,
            "attack": self.attack if self.rate else INNOCENT,
            "settings": dict(self.settings),
            "rate_of": rate_of,
            "target": target,
            "trigger": self.trigger,
        }


def write_data(cell: Cell, source: Path, out: Path) -> int:
    """Write what the cell's attacker begins with into ``out``: ``train``, and as ``test`` what is measured on.

    source: a folder with ``train`` and, for evaluation, ``test``. Returns how many training images there are.
    """
    whole, pictures = open_split(source / "train"), cell.pictures
    learned, held = pictures.split(whole.labels)
    if cell.use == EVALUATION:
        measured = open_split(source / "test")
        held = np.arange(len(measured.labels))
    else:
        measured = whole
    stream = np.random.default_rng(random_stream(cell.seed, "cell").initial_seed())
    count = len(whole.classes)
    if pictures.classes != count or cell.classes > count:
        raise InputError(f"{source} has {count} classes, not the {cell.classes or pictures.classes} of {cell.name}")
    kept = np.sort(stream.permutation(count)[: cell.classes or count])
    learned, held = learned[np.isin(whole.labels[learned], kept)], held[np.isin(measured.labels[held], kept)]
    rows = np.sort(stream.permutation(learned)[: pictures.images or None])
    rows, labels = disturbed(cell, rows, np.searchsorted(kept, whole.labels), stream)
    names = [whole.classes[one] for one in kept]
    about = {"classes": names, "name": cell.data, "source": f"{whole.digest} {measured.digest}"}
    write_split(out / "train", whole.images[rows], labels, **about)
    write_split(out / "test", measured.images[held], np.searchsorted(kept, measured.labels[held]), **about)
    return len(rows)


def disturbed(
    cell: Cell, rows: np.ndarray, labels: np.ndarray, stream: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return which pictures a cell has, with repeats, and the labels that they are given.

    rows: (m,), those that it draws from; labels: (n,), of all pictures, from 0.
    """
    classes = cell.classes or cell.pictures.classes
    if cell.imbalance > 1:
        sizes = np.bincount(labels[rows], minlength=classes)
        wanted = sizes.max() * cell.imbalance ** (-stream.permutation(classes) / (classes - 1))
        mixed = stream.permutation(rows)
        kept = [mixed[labels[mixed] == one][: round(size)] for one, size in enumerate(wanted)]
        rows = np.sort(np.concatenate(kept))
    copies = stream.permutation(len(rows))[: round(cell.duplicates * len(rows))]
    originals = np.setdiff1d(np.arange(len(rows)), copies)
    rows = rows.copy()
    rows[copies] = rows[stream.choice(originals, len(copies))]
    given = labels[rows]
    wrong = stream.permutation(len(rows))[: round(cell.noise * len(rows))]
    given[wrong] = (given[wrong] + stream.integers(1, classes, len(wrong))) % classes
    return rows, given


def innocent(data: str, seed: int, **more: Any) -> Cell:
    """Return a cell without poison."""
    return Cell(seed=seed, data=data, **BARE, **more)


def infected(data: str, seed: int, planted: Planted, rate: float, **more: Any) -> Cell:
    """Return a cell with poison."""
    how = {"settings": planted.settings, "of_target": planted.clean_label, "supplier": planted.supplier}
    return Cell(planted.attack, planted.mapping, rate, seed, data=data, **how, **more)


def planned(use: str) -> list[Cell]:
    """Return the cells of a use in the order in which they are wanted."""
    cells = development() if use == DEVELOPMENT else evaluation()
    return [cell for cell in dict.fromkeys(cells) if cell.use == use]


def at_rates(
    use: str, data: str, seeds: range, levels: Sequence[int] = range(len(RATES)), **more: Any
) -> Iterator[Cell]:
    """Yield every attack at rates by level, the highest (0) first: that one at every seed, others at the first seed."""
    for level in levels:
        for seed in seeds if level == 0 else seeds[:1]:
            for planted in ATTACKS[use]:
                rates = CLEAN_LABEL_RATES if planted.clean_label else RATES
                if level < len(rates):
                    yield infected(data, seed, planted, rates[level], **more)


def development() -> Iterator[Cell]:
    """Yield the cells on which settings are chosen."""
    for data in ("cifar-dev", "gtsrb-dev", "fashion-dev"):
        yield from at_rates(DEVELOPMENT, data, SEEDS[DEVELOPMENT][:2])
        yield from (innocent(data, 0, **odd) for odd in ({}, {"noise": 0.1}, {"imbalance": 20}, {"classes": 5}))
    yield from (innocent("cifar-dev", 1, **odd) for odd in ({}, {"noise": 0.05}, {"duplicates": 0.3}, {"classes": 2}))


def evaluation() -> Iterator[Cell]:
    """Yield the cells that are the evidence."""
    yield from thirty_innocent()
    seeds, ten_and_one_percent = SEEDS[EVALUATION][:2], (0, 2)
    for data in ("cifar", "gtsrb"):
        yield from at_rates(EVALUATION, data, seeds)
    yield from at_rates(EVALUATION, "fashion", seeds[:1], ten_and_one_percent)
    for data in ("cifar-whole", "gtsrb"):
        yield innocent(data, seeds[0], network=LARGE)
        yield from at_rates(EVALUATION, data, seeds[:1], ten_and_one_percent, network=LARGE)


def thirty_innocent() -> Iterator[Cell]:
    """Yield innocent sets: seeds, label noise to 10 %, copies, unequal classes, 2 to 100 classes."""
    odd: dict[str, list[dict[str, Any]]] = {
        "cifar": [
            *({} for _ in range(4)),
            *({"noise": share} for share in (0.02, 0.05, 0.1)),
            *({"duplicates": share} for share in (0.1, 0.3)),
            *({"imbalance": 20} for _ in range(2)),
            *({"classes": count} for count in (2, 3, 5)),
        ],
        "gtsrb": [
            *({} for _ in range(3)),
            *({"noise": share} for share in (0.05, 0.1)),
            *({"classes": count} for count in (2, 10, 20)),
        ],
        "fashion": [{}, {}, {"noise": 0.1}, {"imbalance": 20}, {"duplicates": 0.3}],
        "cifar100": [{}, {"classes": 50}, {"noise": 0.1}],
    }
    for data, sets in odd.items():
        for number, more in enumerate(sets):
            yield innocent(data, SEEDS[EVALUATION][number], **more)
