"""Detection with a part taken away: that part's evidence says nothing any more, and nothing else is touched."""

from dataclasses import fields

import numpy as np
import pytest

from experiments import parts
from pud.detectors.pud import DetectConfig
from pud.evidence.contract import Evidence

TAKEN = {  # of the infected model's evidence and of the last one's
    "pud, without QUE": (set(), set()),
    "pud, without perturbation cues": ({"noise_survival", "mix_survival"}, set()),
    "pud, without witnesses": ({"votes", "trigger_score"}, set()),
    "pud, without contradictions": (set(), {"trigger_score"}),
}


@pytest.fixture
def evidence() -> Evidence:
    stream = np.random.default_rng(0)
    one, many = stream.random(20, np.float32), stream.random((20, 4), np.float32)
    return Evidence(np.arange(20) % 4, many, many, one, one, np.arange(20) % 4, many, one)


@pytest.mark.parametrize("part", parts.PARTS)
def test_a_part_is_taken_away_and_no_other(part: str, evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "detect", lambda *given: given)
    *after, config = parts.PARTS[part](evidence, evidence)
    for one, taken in zip(after, TAKEN[part], strict=True):
        changed = {f.name for f in fields(one) if getattr(one, f.name) is not getattr(evidence, f.name)}
        assert changed == taken
        assert all(len(np.unique(getattr(one, name))) == 1 for name in taken)
    assert (config == DetectConfig()) is (part != "pud, without QUE")
