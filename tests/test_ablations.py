"""Detection with a part taken away: that part's evidence says nothing any more, and nothing else is touched."""

from dataclasses import fields

import numpy as np
import pytest

from experiments import ablations
from pud.detectors.pud import DetectConfig
from pud.evidence.contract import FilledRule, InfectedEvidence, PurifiedEvidence

RULE = FilledRule(0.5, (0.1, 0.1), (0.5, 0.1))
TAKEN = {  # of the infected model's evidence and of the last one's
    "pud, without QUE": (set(), set()),
    "pud, without perturbation cues": ({"noise_survival", "mix_survival"}, set()),
    "pud, without witnesses": ({"heldout", "trigger_score", "scored"}, set()),
    "pud, without contradictions": (set(), {"trigger_score", "scored"}),
}


@pytest.mark.parametrize("part", ablations.DETECTOR_ABLATIONS)
def test_a_part_is_taken_away_and_no_other(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = np.random.default_rng(0)
    labels, one, many = np.arange(20) % 4, stream.random(20, np.float32), stream.random((20, 4), np.float32)
    scored = np.array([True, False, True, False])
    given = (
        InfectedEvidence(labels, labels, many, many, one, one, one, many, one, scored, RULE, many),
        PurifiedEvidence(labels, many, one, scored, RULE),
    )
    monkeypatch.setattr(ablations, "detect", lambda *given: given)
    *after, config = ablations.DETECTOR_ABLATIONS[part](*given)
    for before, one_after, taken in zip(given, after, TAKEN[part], strict=True):
        changed = {f.name for f in fields(before) if getattr(one_after, f.name) is not getattr(before, f.name)}
        assert changed == taken
        assert all(len(np.unique(getattr(one_after, name))) == 1 for name in taken)
    assert (config == DetectConfig()) is (part != "pud, without QUE")
