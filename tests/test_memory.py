"""A GPU without room: the batch is halved, said, and what comes out says so."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pud.steps.train
from pud.base.errors import InputError
from pud.base.memory import halving_batches
from pud.models.training import TrainConfig
from pud.steps.train import train_step


@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 100


def fits(most: int, tried: list[int]) -> Callable[[Config], str]:
    def run(config: Config) -> str:
        tried.append(config.batch_size)
        if config.batch_size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "done"

    return run


def test_the_batch_is_halved_until_it_fits_and_said(capfd: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []
    assert halving_batches(fits(30, tried), Config()) == ("done", Config(25))
    assert tried == [100, 50, 25]
    assert "begin again with batch_size 25" in capfd.readouterr().err


def test_where_one_image_does_not_fit_the_remedy_is_named() -> None:
    with pytest.raises(InputError, match="take a smaller network"):
        halving_batches(fits(0, []), Config())


def test_other_errors_are_not_taken_for_it() -> None:
    def run(config: Config) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        halving_batches(run, Config())


def test_a_model_says_with_which_batches_it_was_trained(
    sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's refusal cannot be had here: the first call of training stands for it."""
    train = pud.steps.train.train

    def refuse_once(*given: object, **more: object) -> None:
        train(*given, **more)  # the weights have moved when memory runs out
        if given[3].batch_size > 64:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")

    config = TrainConfig(epochs=1)
    train_step(sample_folder, dataclasses.replace(config, batch_size=64), seed=3, model=tmp_path / "plain")
    monkeypatch.setattr(pud.steps.train, "train", refuse_once)
    train_step(sample_folder, config, seed=3, model=tmp_path / "halved")
    halved, plain = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("halved", "plain"))
    assert halved["training"]["batch_size"] == 64
    assert halved["sha256"] == plain["sha256"]  # nothing of the first try is left
