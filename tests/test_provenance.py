"""The chain of digests: it holds for what the steps made, and breaks wherever a byte was changed."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pud.artifacts.provenance import verify
from pud.attacks.poisoning import PoisonConfig
from pud.base.errors import InputError
from pud.defences.pud import PurifyConfig
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.platform.cli import app
from pud.steps.detect import detect_step
from pud.steps.poison import poison_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.train import train_step

PURIFY = PurifyConfig(epochs=(1,), doublings=(0,), steps=1)


@pytest.fixture(scope="module")
def chain(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small chain: infected model, detection, two purified models."""
    root = tmp_path_factory.mktemp("chain")
    config, truth = PoisonConfig(train_size=1000), root / "truth"
    poison_step(f"file:{sample_folder}", "", config, seed=0, dataset=root / "dataset", ground_truth=truth)
    train_step(root / "dataset", TrainConfig(epochs=1), seed=0, model=root / "infected")
    few = ProbeConfig(splits=0, inversion_steps=0)
    probe_step(root / "infected", root / "dataset", few, seed=0, probe_folder=root / "probe")
    detect_step(root / "probe", root / "probe", DetectConfig(), detection=root / "detection")
    before = root / "infected"
    for name in ("first", "second"):
        purify_step(before, root / "dataset", root / "detection", PURIFY, seed=0, purified=root / name)
        before = root / name
    return root


def given(root: Path) -> dict[str, Path]:
    return {name: root / name for name in ("dataset", "infected", "detection")} | {"parent": root / "first"}


def test_the_chain_holds_from_the_infected_model_to_the_last(chain: Path) -> None:
    links = verify(chain / "second", **given(chain))
    assert len(links) == 10
    assert all(link.holds for link in links), list(map(str, links))


def test_what_was_not_given_is_neither_good_nor_bad(chain: Path) -> None:
    links = {link.name: link.holds for link in verify(chain / "second")}
    assert links["model"] is True
    assert links["training_images"] is None
    assert links["infected_model"] is None


@pytest.mark.parametrize(
    ("file", "broken"),
    [
        ("second/model.safetensors", "model"),
        ("second/clean.npy", "clean.npy"),
        ("second/teacher.safetensors", "teacher.safetensors"),
        ("second/state.json", "state.json"),
        ("detection/detection.parquet", "detection"),
        ("infected/model.safetensors", "infected_model"),
        ("first/model.safetensors", "model it began with"),
    ],
)
def test_a_changed_byte_breaks_its_link_and_no_other(chain: Path, tmp_path: Path, file: str, broken: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(chain, root)
    content = bytearray((root / file).read_bytes())
    content[-1] ^= 1
    (root / file).write_bytes(content)
    links = verify(root / "second", **given(root))
    assert [link.name for link in links if not link.holds] == [broken]


def test_another_model_s_training_data_break_the_chain(chain: Path, tmp_path: Path, sample_folder: Path) -> None:
    wrong = {link.name for link in verify(chain / "second", dataset=sample_folder) if link.holds is False}
    assert wrong == {"training_images", "training_labels"}


@pytest.mark.parametrize("digest", [5, ["a"], {}])
def test_a_digest_that_is_none_breaks_the_chain(chain: Path, tmp_path: Path, digest: object) -> None:
    shutil.copytree(chain / "second", tmp_path / "model")
    card = json.loads((tmp_path / "model/model.json").read_text())
    card["made_from"]["training_images"] = digest
    (tmp_path / "model/model.json").write_text(json.dumps(card))
    wrong = [link for link in verify(tmp_path / "model", dataset=chain / "dataset") if link.holds is False]
    assert [link.name for link in wrong] == ["training_images"]


def test_the_command_fails_if_a_link_does(chain: Path, sample_folder: Path) -> None:
    for dataset, code in ((chain / "dataset", 0), (sample_folder, 1)):
        done = CliRunner().invoke(app, ["verify", "--model", str(chain / "second"), "--dataset", str(dataset)])
        assert done.exit_code == code, done.output


def test_a_folder_without_a_card_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(InputError, match="not a pud-model/1 file"):
        verify(tmp_path)
