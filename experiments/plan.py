"""What is to be measured: the cells of the grid, each an infected model, whether or not they are measured yet."""

import dataclasses
from pathlib import Path
from typing import Any

from pud.attacks.poisoning import ALL_TO_ALL as ALL
from pud.attacks.poisoning import ALL_TO_ONE as ONE
from pud.attacks.poisoning import PoisonConfig
from pud.base.files import read_json

FORMAT = "pud-results/1"
DEFAULT = "robust"
FILTER = "filter, then adversarial training"
BOUNDS = ["floor", "ceiling"]
REFERENCES, PRESETS = ["infected", *BOUNDS], ["robust", "erase", "retrain", "paper", "aft"]
WORKED = 0.8  # attack success of the infected model from which there is something to defend against
WORK = Path("runs/bench")
CLEAN_LABEL = ("sig", "label-consistent")
BEYOND = "source-specific"  # an attack that nobody asked for: no part in the figures that were
ATTACKS = [
    ("badnets", ONE),
    ("wanet", ONE),
    ("adaptive-consistency", ONE),
    ("blend", ONE),
    ("sig", ONE),
    ("input-aware", ONE),
    ("blend", ALL),
    ("adaptive-blend", ONE),
    ("sig-changed", ONE),
    ("label-consistent", ONE),
    ("badnets", ALL),
    (BEYOND, ONE),
]
AUTOATTACKED = [("badnets", ONE), ("blend", ONE), ("wanet", ONE)]  # of seed 0, as those
ABLATED = [("badnets", ONE), ("blend", ONE)]
COSTED = [("badnets", ONE), ("blend", ALL), ("sig", ONE)]
RATES = {"training set": (0.1, 0.05, 0.01), "target class": (0.5, 0.25, 0.1)}  # fractions of it, the highest first
SEEDS = (0, 1, 2)  # at the highest rate
OTHER_RATES_SEED = 3
REPEATED_SEED = 4  # what seed 3 mended, with other classes
HELD_OUT_SEED = 5  # planned when DEFENCE 6 was frozen and nothing of the seed had been run
MENDED = [("sig", ONE, 1), ("input-aware", ONE, 2), ("adaptive-blend", ONE, 1), ("adaptive-blend", ONE, 2)]  # by seed 3
CLASSES = 10
# rival defences as the results call them: (name in the registry, the learning rates at which each is tried)
RIVALS = {
    "fine-tuning": ("fine-tuning", (0.01, 0.05)),
    "FT-SAM": ("ft-sam", (0.01, 0.05)),
    "I-BAU": ("i-bau", (3e-4, 1e-3)),
    "ANP": ("anp", (0.05, 0.2)),
}
# raised when the defence decides otherwise or learns otherwise: what was measured of an older one is measured again
DEFENCE = 8  # since a judge, not a count of votes, says whether a class was filled (pud/evidence/judge.py)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One infected model. rate: of the training set, or of the target class for a clean-label attack."""

    attack: str
    mapping: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.attack}_{self.mapping}_{self.rate:g}_s{self.seed}"

    @property
    def folder(self) -> Path:
        return WORK / self.name

    @property
    def defended(self) -> Path:
        """The folder of what the present defence makes of the cell."""
        return self.folder / f"defence-{DEFENCE}"

    @property
    def clean_label(self) -> bool:
        return self.attack in CLEAN_LABEL

    @property
    def target_label(self) -> int:
        """Class 0 in seeds 0 and 1, on which the settings were chosen, in later ones another class for each attack."""
        shift = self.seed - 1
        return (ATTACKS.index((self.attack, self.mapping)) + shift) % CLASSES if shift > 0 else 0

    def empty(self) -> dict[str, Any]:
        """Return the content of the cell's file before anything is measured."""
        return {
            "format": FORMAT,
            "attack": self.attack if self.rate else "innocent",
            "mapping": self.mapping,
            "poison_rate": self.rate,
            "rate_of": _rate_of(self.attack),
            "clean_label": self.clean_label,
            "target_label": None if self.mapping == ALL else self.target_label,
            "seed": self.seed,
            "train_images": PoisonConfig.train_size,
            "entries": {},
            "detectors": {},
        }

    def load(self, results: Path) -> dict[str, Any]:
        """Return what is known of the cell."""
        path = results / f"{self.name}.json"
        return read_json(path, FORMAT) if path.exists() else self.empty()


def innocent(seed: int) -> Cell:
    """Return the cell without poison."""
    return Cell("badnets", ONE, 0.0, seed)


def at_rate(attack: str, mapping: str, level: int, seed: int) -> Cell:
    """Return a cell at rate level 0 (high), 1 or 2 (low)."""
    return Cell(attack, mapping, RATES[_rate_of(attack)][level], seed)


def _rate_of(attack: str) -> str:
    return "target class" if attack in CLEAN_LABEL else "training set"


def highest_rates(seed: int) -> list[Cell]:
    """Return a seed's cells at the highest rate of every attack."""
    return [at_rate(*attack, 0, seed) for attack in ATTACKS]


def all_cells() -> list[Cell]:
    """Return every cell: four seeds at the highest rate and without poison, and the other rates."""
    return [cell for seed in (*SEEDS, HELD_OUT_SEED) for cell in (*highest_rates(seed), innocent(seed))] + other_rates()


def other_rates() -> list[Cell]:
    """Return the cells at the other rates: all on one seed, and on one more what the defence had missed there."""
    wide = [at_rate(*attack, level, OTHER_RATES_SEED) for level in (1, 2) for attack in ATTACKS]
    return wide + [at_rate(*mended, REPEATED_SEED) for mended in MENDED]
