"""What every test may use: a small real sample of Fashion-MNIST (tests/data), an MLflow server, process settings."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from servers import TrackingServer

from pud.base.device import prepare_process
from pud.data.images import LabelledImages
from pud.data.readers import open_split
from pud.data.readers.npy import write_split
from pud.platform.fetch import CLASSES

SAMPLE = Path(__file__).parent / "data" / "fashion-mnist-sample.npz"


@pytest.fixture(scope="session", autouse=True)
def _process() -> None:
    prepare_process()
    torch.set_num_threads(1)  # with two, oneDNN spoils the memory for odd batches of as small a network as ours


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set folder: the first images of Fashion-MNIST, in the published order. Do not write into it."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    with np.load(SAMPLE, allow_pickle=False) as sample:
        for split in ("train", "test"):
            write_split(
                folder / split,
                sample[f"{split}_images"],
                sample[f"{split}_labels"],
                classes=CLASSES,
                name="fashion-mnist",
                source="the first images of Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747), MIT licence",
            )
    return folder


@pytest.fixture(scope="session")
def train_split(sample_folder: Path) -> LabelledImages:
    return open_split(sample_folder / "train")


@pytest.fixture(scope="session")
def test_split(sample_folder: Path) -> LabelledImages:
    return open_split(sample_folder / "test")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """A real MLflow server, one for each file of tests."""
    server = TrackingServer(tmp_path_factory.mktemp("mlflow"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 40 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
