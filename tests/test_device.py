"""Devices by name, random streams by (seed, step, round)."""

import pytest
import torch

from pud.base.device import autocast, random_stream, resolve_device
from pud.base.errors import InputError

STREAMS = [(0, "probe", 0), (1, "probe", 0), (0, "purify", 0), (0, "probe", 1), (1, "purify", 1), (2**32, "probe", 0)]


def draw(seed: int, step: str, round_index: int) -> torch.Tensor:
    return torch.rand(64, generator=random_stream(seed, step, round_index))


@pytest.mark.parametrize("stream", STREAMS)
def test_the_same_triple_is_the_same_stream(stream: tuple[int, str, int]) -> None:
    first = draw(*stream)
    torch.manual_seed(7)
    torch.rand(10)
    assert torch.equal(draw(*stream), first)


def test_any_difference_is_another_stream() -> None:
    assert len({tuple(draw(*stream).tolist()) for stream in STREAMS}) == len(STREAMS)


def test_drawing_from_a_stream_leaves_the_global_one_alone() -> None:
    state = torch.get_rng_state()
    draw(0, "probe", 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", [-1, 2**53 + 1, 2**63])
def test_a_seed_that_a_pipeline_could_not_hand_over_is_refused_in_a_sentence(seed: int) -> None:
    with pytest.raises(InputError, match=rf"seed {seed} .* from 0 to 2\^53"):
        random_stream(seed, "probe")


def test_the_largest_seed_survives_the_way_through_a_pipeline() -> None:
    assert torch.equal(draw(2**53, "probe", 0), draw(int(float(2**53)), "probe", 0))


def test_auto_takes_the_gpu_when_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device() == resolve_device("auto")


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x", "meta"])
def test_an_unusable_device_is_refused_with_the_choice(name: str) -> None:
    with pytest.raises(InputError, match="choose auto, cpu or cuda"):
        resolve_device(name)


def test_autocast_computes_in_bfloat16_or_not_at_all() -> None:
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype in (torch.bfloat16, torch.float32)
