"""Every detector of the registry keeps one contract; the rivals are checked against their definitions."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pud.detectors
from experiments.detect_speed import synthetic
from pud.artifacts.detection import load_detection
from pud.artifacts.evidence import save_evidence
from pud.base.errors import InputError
from pud.detectors import DEFAULT, DETECTORS, detector_settings
from pud.detectors.contract import CLEAN, POISONED, UNSURE
from pud.detectors.pud import DetectConfig, detect
from pud.detectors.scan import two_groups
from pud.detectors.spectre import SpectreConfig, covariance, robust_members, widest_form
from pud.detectors.strip import StripConfig
from pud.evidence.contract import InfectedEvidence
from pud.steps.detect import detect_step

CLASSES = 10


@pytest.fixture(scope="module")
def given() -> tuple[InfectedEvidence, np.ndarray]:
    infected, _, poisoned = synthetic(3000, 16, CLASSES)
    return infected, poisoned


@pytest.mark.parametrize("name", DETECTORS.names())
def test_a_detector_says_something_of_every_image_and_the_same_twice(
    name: str, given: tuple[InfectedEvidence, np.ndarray]
) -> None:
    infected, n = given[0], len(given[1])
    detector, config = detector_settings({"detector": name})
    found, again = detector.detect(infected, None, config), detector.detect(infected, None, config)
    assert (detector.name, type(config)) == (name, detector.config)
    accused = found.verdict == POISONED
    assert set(found.verdict) <= {CLEAN, UNSURE, POISONED}
    assert np.isfinite(found.suspicion).all()
    assert ((found.posterior >= 0) & (found.posterior <= 1)).all()
    assert found.separation.shape == (CLASSES,)
    assert np.isfinite(found.separation).all()
    assert (found.inferred_label[~accused] == -1).all()
    assert not found.may_unlearn[~accused].any()
    assert found.target_labels == np.unique(infected.labels[accused]).tolist()
    for array, same in ((found.suspicion, again.suspicion), (accused, again.verdict == POISONED)):
        assert array.shape == (n,)
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", [DEFAULT, "activation_clustering", "scan"])
def test_poison_that_lies_apart_is_accused_of_its_class(name: str, given: tuple[InfectedEvidence, np.ndarray]) -> None:
    infected, poisoned = given
    detector, config = detector_settings({"detector": name})
    accused = detector.detect(infected, None, config).verdict == POISONED
    assert accused[poisoned].mean() > accused[~poisoned].mean() + 0.1


def test_spectral_signatures_accuse_half_of_every_class_whether_or_not_there_is_poison(
    given: tuple[InfectedEvidence, np.ndarray],
) -> None:
    detector, config = detector_settings({"detector": "spectral_signatures"})
    found = detector.detect(given[0], None, config)
    rates = [(found.verdict[given[0].labels == label] == POISONED).mean() for label in range(CLASSES)]
    np.testing.assert_allclose(rates, 1.5 * 0.33, atol=0.02)


def test_spectre_accuses_half_of_one_class_the_one_that_poison_widens(
    given: tuple[InfectedEvidence, np.ndarray],
) -> None:
    infected, poisoned = given
    detector, config = detector_settings({"detector": "spectre"})
    found = detector.detect(infected, None, config)
    target = np.bincount(infected.labels[poisoned]).argmax()
    assert found.target_labels == [target]
    members = infected.labels == target
    assert (found.verdict == POISONED).sum() == round(1.5 * 0.33 * members.sum())
    assert np.median(found.suspicion[members]) == pytest.approx(1)
    fewer = detector.detect(infected, None, SpectreConfig(expected_poison=0.1))
    assert (fewer.verdict == POISONED).sum() == round(1.5 * 0.1 * members.sum())


def test_the_widest_form_is_the_largest_eigenvector_of_the_fourth_moments() -> None:
    random = np.random.default_rng(0)
    white = random.normal(size=(500, 3)) * np.where(random.random(500) < 0.1, 3, 1)[:, None]
    squares = np.einsum("mi,mj->mij", white, white).reshape(500, 9)
    values, vectors = np.linalg.eigh(squares.T @ squares / 500 - np.outer(np.eye(3), np.eye(3)))
    variance, form = widest_form(white)
    assert variance == pytest.approx(values[-1], rel=1e-3)
    assert abs(form.ravel() @ vectors[:, -1]) == pytest.approx(1, abs=1e-2)


def test_a_robust_covariance_leaves_a_tight_cluster_out_and_nobody_of_a_normal_distribution() -> None:
    random = np.random.default_rng(0)
    points, poison = random.normal(size=(2000, 4)), np.arange(2000) < 60
    assert robust_members(points, 0.03).all()
    points[poison] = [12, 0, 0, 0] + 0.1 * random.normal(size=(60, 4))
    kept = robust_members(points, 0.03)
    assert not kept[poison].any()
    assert kept[~poison].mean() > 0.96  # twice the expected poison may go
    np.testing.assert_allclose(covariance(points[kept]), np.eye(4), atol=0.15)
    assert covariance(points)[0, 0] > 4


def test_strip_accuses_its_false_rejection_rate_of_clean_images_and_all_that_stay_sure() -> None:
    infected, _, _ = synthetic(4000, 4, CLASSES)
    random, sure = np.random.default_rng(0), np.arange(4000) < 40
    entropy = np.where(sure, 0.1, random.normal(1.5, 0.2, 4000)).astype(np.float32)
    detector = DETECTORS.find("strip")
    mixed = InfectedEvidence(**{**vars(infected), "mix_entropy": entropy})
    accused = detector.detect(mixed, None, StripConfig(0.02)).verdict == POISONED
    assert accused[sure].all()
    assert accused[~sure].mean() == pytest.approx(0.02, abs=0.01)
    unmixed = InfectedEvidence(**{**vars(infected), "mix_entropy": np.zeros(4000, np.float32)})
    with pytest.raises(InputError, match="probe with mix_draws"):
        detector.detect(unmixed, None, StripConfig())


def test_two_clusters_are_told_apart_and_one_is_not_worth_splitting() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(400, 3))
    far = np.arange(400) < 100
    upper, two = two_groups(points + 8 * far[:, None], np.eye(3), 5)
    assert max((upper == far).mean(), (upper != far).mean()) > 0.99
    assert two > 10 * two_groups(points, np.eye(3), 5)[1]


def test_a_detector_is_chosen_by_a_setting_and_ours_by_none() -> None:
    assert detector_settings({"alpha": 2}) == (DETECTORS.find(DEFAULT), DetectConfig(alpha=2.0))
    assert detector_settings({"detector": "strip", "false_rejection": 0.05})[1] == StripConfig(0.05)
    with pytest.raises(InputError, match="unknown detector 'oracle': choose one of activation_clustering, none, pud"):
        detector_settings({"detector": "oracle"})
    with pytest.raises(InputError, match="StripConfig has no setting alpha: choose from false_rejection"):
        detector_settings({"detector": "strip", "alpha": 4})


WITHOUT_ART = """
import sys
sys.modules["art"] = None
from pud.detectors import detector_settings
detector, config = detector_settings({"detector": "activation_clustering"})
assert "torch" not in sys.modules
from experiments.detect_speed import synthetic
try:
    detector.detect(synthetic(300, 4, 10)[0], None, config)
except ValueError as error:
    print(error)
"""


def test_a_detector_of_art_names_it_where_it_is_missing_and_finding_detectors_loads_neither_it_nor_torch() -> None:
    code = WITHOUT_ART.replace("from experiments", "sys.path.insert(0, '.')\nfrom experiments", 1)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert "pip install adversarial-robustness-toolbox" in done.stdout


REFUSES_IMPORTS_IN_THREADS = """
import sys, threading
sys.path.insert(0, ".")

class MainThreadOnly:
    def find_spec(self, name, *_):
        assert threading.current_thread() is threading.main_thread(), f"{name} is imported by a thread"

from experiments.detect_speed import synthetic
from pud.detectors import detector_settings
detector, config = detector_settings({})
infected = synthetic(3000, 16, 10)[0]
sys.meta_path.insert(0, MainThreadOnly())
print("accused:", detector.detect(infected, None, config).target_labels)
"""


def test_threads_of_a_detection_import_nothing_since_two_at_once_may_find_a_package_half_made() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSES_IMPORTS_IN_THREADS],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "accused:" in done.stdout, done.stderr


ONE_FILE = """
'Accuses the first images.'
from dataclasses import dataclass
import numpy as np
from pud.detectors.contract import Detection, Detector

@dataclass(frozen=True)
class Config:
    first: int = 7

def detect(infected, current, config):
    accused = np.arange(len(infected.labels)) < config.first
    return Detection.of_accusations(accused, accused, infected)

DETECTORS = {"first": Detector("first", Config, detect)}
"""


def test_a_detector_is_one_file_in_a_folder_that_is_looked_through(
    given: tuple[InfectedEvidence, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/first_images.py").write_text(ONE_FILE)
    monkeypatch.setattr(pud.detectors, "__path__", [*pud.detectors.__path__, str(tmp_path / "more")])
    about = {"rounds_done": 0, "adversarial_share": [0.0] * CLASSES, "settings": {}}
    (tmp_path / "probe").mkdir()
    save_evidence(tmp_path / "probe", given[0], about)
    detector, config = detector_settings({"detector": "first", "first": 12})
    probes, out = (tmp_path / "probe", tmp_path / "probe"), tmp_path / "detection"
    facts = detect_step(*probes, config, detector=detector.name, detection=out)
    assert facts["accused_images"] == 12
    found, made = load_detection(out, given[0].labels)
    assert (found.verdict[:12] == POISONED).all()
    assert made["settings"]["detect"] == {"detector": "first", "first": 12}


def test_detection_of_many_features_takes_seconds() -> None:
    """A fifth of what experiments/detect_speed.py measures, in seconds of the processor: others may be at work."""
    infected, purified, poisoned = synthetic(10_000, 512, CLASSES)
    started = time.process_time()
    found = detect(infected, purified, DetectConfig())
    assert time.process_time() - started < 30
    assert ((found.verdict == POISONED) == poisoned).mean() > 0.95
