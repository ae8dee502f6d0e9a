"""How long detection takes on synthetic evidence, as JSON.

python -m experiments.detect_speed [--images 50000] [--features 512] [--classes 10]
"""

import argparse
import json
import time

import numpy as np

from pud.detectors.pud import DetectConfig, detect
from pud.evidence.contract import InfectedEvidence, PurifiedEvidence
from pud.evidence.discrimination import DiscriminationConfig

TARGET, POISON = 0, 0.1


def synthetic(n: int, d: int, classes: int, seed: int = 0) -> tuple[InfectedEvidence, PurifiedEvidence, np.ndarray]:
    """Return evidence before and after a round, and which of its images are poisoned, bool (n,).

    A tenth of the images come from all other classes into the target, where they lie apart in features, survive
    perturbation, and have a trigger score of their own.
    """
    random, labels = np.random.default_rng(seed), np.arange(n) % classes
    true, others = labels.copy(), np.flatnonzero(labels != TARGET)
    poisoned = np.isin(np.arange(n), random.permutation(others)[: int(POISON * n)])
    labels[poisoned] = TARGET
    spread = np.arange(1, d + 1) ** -0.6
    features = 3 * (random.normal(size=(classes, d)) * spread)[true] + random.normal(size=(n, d)) * spread
    features[poisoned] = 0.5 * features[poisoned] + 6 * np.sign(random.normal(size=d)) / np.sqrt(d)
    survival = np.where(poisoned, random.uniform(0.7, 1, n), random.uniform(0, 0.95, n)).astype(np.float32)
    heldout = random.uniform(0, 0.3, (n, classes))
    heldout[np.arange(n), true] = np.where(poisoned, 0.97, 0)
    said = [8 * np.eye(classes)[shown] + random.normal(size=(n, classes)) for shown in (labels, true)]
    logits = [values.astype(np.float32) for values in said]
    score = np.where(labels == TARGET, random.normal(size=n) + 4 * poisoned, 0).astype(np.float32)
    scored, rules = np.arange(classes) == TARGET, DiscriminationConfig()
    infected = InfectedEvidence(
        labels=labels,
        scene=np.arange(n),
        logits=logits[0],
        features=features.astype(np.float32),
        noise_survival=survival,
        mix_survival=survival,
        mix_entropy=1 - survival,
        heldout=heldout.astype(np.float32),
        strange=poisoned & (random.random(n) < 0.5),
        trigger_score=score,
        scored=scored,
        changes=np.zeros((2, 3, classes), np.float32),
    )
    return infected, PurifiedEvidence(labels, logits[1], score, scored, rules.of_contradictions.filled), poisoned


def main() -> None:
    """Print the seconds of detection before and after a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 50_000), ("features", 512), ("classes", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    infected, purified, poisoned = synthetic(options.images, options.features, options.classes)
    result = vars(options)
    for name, current in (("first", None), ("after_a_round", purified)):
        started = time.perf_counter()
        found = detect(infected, current, DetectConfig())
        result |= {f"{name}_seconds": round(time.perf_counter() - started, 2)}
        result |= {f"{name}_right": float(((found.posterior > 0.5) == poisoned).mean())}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
