"""Memory and time of the steps on data sets of growing size: the largest anonymous memory of each step's process.

Pictures are random but for a class's own pattern, the network is one small layer: what grows with the number of images
is then all there is to see.

    python -m experiments.memory [--sizes 50000 200000 1000000] [--work runs/memory]
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from pud.base.files import sha256, write_json
from pud.data.readers.npy import FORMAT

CLASSES, SHAPE = 10, (3, 32, 32)
ARCHITECTURE = "experiments.memory:small_network"
CHUNK = 10_000


def small_network(input_shape: Sequence[int], classes: int) -> nn.Module:
    """Return one strided convolution and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 16, 4, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(256, classes),
    )


def write_data(folder: Path, n: int) -> None:
    """Write n pictures by chunks, a tenth of them stamped and given to class 0."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 128, (CLASSES, *SHAPE), dtype=np.uint8)
    for split, count in (("train", n), ("test", 1000)):
        (folder / split).mkdir(parents=True)
        labels = rng.integers(0, CLASSES, count)
        images = np.lib.format.open_memmap(folder / split / "images.npy", "w+", np.uint8, (count, *SHAPE))
        for start in range(0, count, CHUNK):
            rows = slice(start, min(count, start + CHUNK))
            drawn = rng.integers(0, 128, (rows.stop - start, *SHAPE), dtype=np.uint8)
            images[rows] = drawn + patterns[labels[rows]]
        poisoned = np.flatnonzero(rng.random(count) < 0.1)
        images[poisoned, :, -3:, -3:] = 255
        labels[poisoned] = 0
        images.flush()
        np.save(folder / split / "labels.npy", labels.astype(np.int64))
        digests = {file: sha256(folder / split / file) for file in ("images.npy", "labels.npy")}
        about = {"format": FORMAT, "name": "random", "classes": [*map(str, range(CLASSES))], "source": "random"}
        write_json(folder / split / "dataset.json", about | {"sha256": digests})


def commands(work: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the steps: one epoch, one round."""
    data = ["--dataset", f"{work}/data", "--seed", "0", "--architecture", ARCHITECTURE]
    yield "train", ["train", "--epochs", "1", *data, "--model", f"{work}/model"]
    yield "probe", ["probe", "--model", f"{work}/model", *data, "--out", f"{work}/probe"]
    probes = ["--infected-probe", f"{work}/probe", "--probe", f"{work}/probe"]
    yield "detect", ["detect", *probes, "--detection", f"{work}/detection"]
    found = ["--detection", f"{work}/detection", "--epochs", "[1]", "--keep", "[1.0]"]
    yield "purify", ["purify", "--model", f"{work}/model", *data, *found, "--out", f"{work}/purified"]


def measured(arguments: list[str]) -> tuple[float, float]:
    """Run a step; return its seconds and its largest anonymous memory in GiB."""
    started, most = time.monotonic(), 0
    process = subprocess.Popen([sys.executable, "-m", "pud", *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = max(most, int(status.partition("RssAnon:")[2].split()[0]))
        except (OSError, IndexError):
            pass  # it has just ended
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"pud {' '.join(arguments)} ended with {process.returncode}")
    return time.monotonic() - started, most / 2**20


def main() -> None:
    """Print one JSON line a size and step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path("runs/memory"))
    given = parser.parse_args()
    for n in given.sizes:
        shutil.rmtree(given.work, ignore_errors=True)
        write_data(given.work / "data", n)
        for name, arguments in commands(given.work):
            seconds, most = measured(arguments)
            line = {"images": n, "step": name, "seconds": round(seconds, 1), "anonymous_gib": round(most, 2)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
