"""A thousand pictures of 224 x 224 in colour: every step takes them, in the memory that it takes for small ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pud.data.readers.npy import write_split

ROOT = Path(__file__).parents[1]
NETWORK = "experiments.memory:small_network"
STEPS = """
import resource, sys
from pathlib import Path
from pud.defences.pud import PurifyConfig
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.steps.detect import detect_step
from pud.steps.probe import probe_step
from pud.steps.purify import purify_step
from pud.steps.train import train_step

data, out, network = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
common = {"seed": 0, "device": "cpu"}
train_step(data, TrainConfig(architecture=network, epochs=1, batch_size=50), model=out / "model", **common)
config = ProbeConfig(splits=0, inversion_steps=0, noise_draws=1, mix_draws=1, adversarial_images=50, batch_size=50)
probe_step(out / "model", data, config, probe_folder=out / "probe", architecture=network, **common)
detect_step(out / "probe", out / "probe", DetectConfig(), detection=out / "detection")
config = PurifyConfig(epochs=(1,), keep=(1.0,), steps=1, batch_size=50)
purify_step(out / "model", data, out / "detection", config, purified=out / "purified", architecture=network, **common)
anonymous = Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]
print(int(anonymous) / 2**20)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    labels = np.arange(1000) % 2
    images = random.integers(0, 128, (1000, 3, 224, 224), dtype=np.uint8)
    images[labels == 1, :, :112] += 127
    for split, rows in (("train", slice(0, 1000)), ("test", slice(0, 10))):
        write_split(
            folder / split, images[rows], labels[rows], classes=["dark", "light"], name="large", source="made here"
        )
    return folder


def test_train_probe_detect_and_purify_take_them_and_hold_no_copy(large: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STEPS, str(large), str(tmp_path), NETWORK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.splitlines()[-1]) < 1.0  # GiB; the pictures as float32 are 0.56, and there are two copies
    training = json.loads((tmp_path / "purified/model.json").read_text())["training"]
    assert training["rounds_done"] == 1
