"""What development may use and what evaluation uses: pictures, seeds, attacks and rates, named here and nowhere else.

Settings are chosen on development cells, and what these show is no evidence. Evaluation cells are: other pictures,
seeds that were never run, attacks that nobody tuned on. They alone open test pictures; development measures on a
validation part of the training pictures.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from experiments.plan import RATES as SHARES
from pud.attacks.poisoning import ALL_TO_ALL, ALL_TO_ONE, SPLIT, UNTARGETED
from pud.base.errors import InputError

DEVELOPMENT, EVALUATION = "development", "evaluation"
SEEDS = {DEVELOPMENT: range(100), EVALUATION: range(1_000, 1 << 31)}  # experiments/plan.py has run 0 to 5
RATES = (0.1, 0.05, 0.01, 0.003)  # of the training set
CLEAN_LABEL_RATES = SHARES["target class"]  # of the target class
SMALL, LARGE = "resnet8", "preactresnet18"
DIGITS = 16  # of a sha256, as digests are kept here and in the ledger


SAM, WEIGHTS = "sam", "weights-only"  # suppliers: who trains so; who hands over the data as they were before the attack
SAM_RADIUS = 0.05


@dataclass(frozen=True)
class Planted:
    """An attack by its name in pud/attacks, where it need not be yet, with the settings that are not its defaults.

    clean_label: its rates are of the target class. supplier: SAM, WEIGHTS, or empty for the usual one.
    """

    attack: str
    mapping: str = ALL_TO_ONE
    settings: tuple[tuple[str, float], ...] = ()
    clean_label: bool = False
    supplier: str = ""


TUNED = (Planted("badnets"), Planted("blend"), Planted("wanet"))
ATTACKS = {
    DEVELOPMENT: TUNED,
    EVALUATION: (
        *TUNED,
        *(Planted(name, ALL_TO_ALL) for name in ("badnets", "blend")),
        *(Planted(name, UNTARGETED) for name in ("badnets", "blend")),
        *(Planted(name, SPLIT) for name in ("wanet", "adaptive-blend")),
        *(Planted("several", settings=(("triggers", count),)) for count in (2, 4)),
        *map(Planted, ("input-aware", "source-specific", "low-frequency", "smooth-warp", "neighbours", "sig-changed")),
        *map(Planted, ("adaptive-blend", "adaptive-consistency", "adaptive-patch", "k-way")),
        *(Planted(name, clean_label=True) for name in ("sig", "sig-covered", "label-consistent", "narcissus")),
        Planted("blend", settings=(("ratio", 0.1),)),  # the paper's strength
        Planted("sig", settings=(("amplitude", 10 / 255),), clean_label=True),  # the paper's strength
        *(Planted(name, settings=(("times_at_test", 2.0),)) for name in ("blend", "low-frequency")),
        Planted("wanet", supplier=SAM),
        *(Planted(name, supplier=WEIGHTS) for name in ("badnets", "wanet")),
    ),
}


@dataclass(frozen=True)
class Pictures:
    """A set of labelled pictures, and what is made of it.

    use: DEVELOPMENT or EVALUATION. images: how many training pictures a seed draws, 0: all. epochs: by network, as many
    as it takes. rows: which of all training pictures belong to the set, from and to. validation: share of these that
    stands in for the test pictures, which stay closed then. track: so many neighbours within a class are frames of one
    thing, and none has frames on both sides. labels: digest of all training labels, by which a folder is known; where
    it is empty any folder is believed.
    """

    use: str
    what: str
    classes: int
    images: int
    epochs: Mapping[str, int] = field(hash=False)
    rows: tuple[int, int | None] = (0, None)
    validation: float = 0.0
    track: int = 1
    labels: str = ""

    def split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of all training pictures, of labels (n,), are learned from and which stand in for test pictures.

        The later ones stand in. Where a class is no whole number of tracks nobody knows which one is short, and a
        track's length between both sides is left out.

        Raises:
            InputError: these are the labels of other pictures.
        """
        if self.labels not in ("", digest_of(labels)):
            raise InputError(f"the training labels are not those of {self.what}: give the folder of these pictures")
        mine = np.arange(len(labels))[slice(*self.rows)]
        learned, held = [], []
        for group in [mine] if self.track == 1 else [mine[labels[mine] == one] for one in np.unique(labels[mine])]:
            track = np.arange(len(group)) // self.track
            first = round((1 - self.validation) * (track[-1] + 1))
            gap = bool(self.validation and len(group) % self.track)
            learned.append(group[track < first - gap])
            held.append(group[track >= first])
        return np.sort(np.concatenate(learned)), np.sort(np.concatenate(held))


def digest_of(labels: np.ndarray) -> str:
    """Return the digest of labels (n,), however they are kept."""
    return hashlib.sha256(np.ascontiguousarray(labels, np.int64).tobytes()).hexdigest()[:DIGITS]


CIFAR, GTSRB = {SMALL: 15, LARGE: 60}, {SMALL: 10, LARGE: 20}
SIGNS = {"classes": 43, "images": 0, "epochs": GTSRB, "labels": "f83cf607019f04ad"}
PICTURES = {
    "cifar-dev": Pictures(
        DEVELOPMENT, "CIFAR-10, half 1", 10, 20_000, CIFAR, validation=0.2, labels="3d51816393b89089"
    ),
    "gtsrb-dev": Pictures(DEVELOPMENT, "GTSRB at 32x32, JPEG 95", **SIGNS, validation=0.2, track=30),
    "fashion-dev": Pictures(
        DEVELOPMENT, "Fashion-MNIST, training pictures to 25,000", 10, 20_000, {SMALL: 6}, (0, 25_000), validation=0.2
    ),
    "cifar": Pictures(EVALUATION, "CIFAR-10, half 2", 10, 20_000, CIFAR, labels="49c5836dc3bd6143"),
    # its training pictures are those of gtsrb-dev; none of its test pictures was opened
    "gtsrb": Pictures(EVALUATION, "GTSRB at 32x32, JPEG 95", **SIGNS),
    # all of its pictures were seen before there was this file: only the seeds are new
    "fashion": Pictures(
        EVALUATION, "Fashion-MNIST, training pictures from 25,000", 10, 20_000, {SMALL: 6}, (25_000, None)
    ),
    # half of its training pictures are those of cifar-dev; none of its test pictures was opened
    "cifar-whole": Pictures(EVALUATION, "CIFAR-10", 10, 0, CIFAR, labels="6a52fa40600133bc"),
    "cifar100": Pictures(EVALUATION, "CIFAR-100", 100, 0, CIFAR),
}


def use_of(data: str, seed: int, attack: str = "") -> str:
    """Return whether this belongs to development or to evaluation; an empty attack: innocent.

    Raises:
        InputError: it mixes both.
    """
    use = PICTURES[data].use
    if seed not in SEEDS[use]:
        raise InputError(f"{data} is for {use}, and seed {seed} is not: choose one of {SEEDS[use]}")
    if attack and attack not in {one.attack for one in ATTACKS[use]}:
        raise InputError(f"{data} is for {use}, and {attack} is not: choose an attack of its list in splits.py")
    return use
