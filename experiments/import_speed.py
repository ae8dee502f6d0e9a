"""How fast pictures are imported, beside torchvision's ImageFolder in as many processes, and in how much memory.

    .venv-zoo/bin/python experiments/import_speed.py --pictures 5000 --workers 2

Makes JPEGs of 32 to 256 pixels in a folder that is gone afterwards. Both bring each to 64x64 (bilinear) in RGB,
torchvision as tensors in [0, 1]; the import also writes them, tells near-duplicates and draws the contact sheet. Each
runs in a process of its own, whose time on processors is told too, that of its workers included: where others compute,
seconds tell little.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
SIDE = 64
CLASSES = 10
QUALITY = 90


def make(folder: Path, count: int, seed: int) -> None:
    """Write JPEGs that are about as hard to decode as photographs."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        width, height = generator.integers(32, 257, 2)
        small = Image.fromarray(generator.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8))
        path = folder / f"class{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(path, quality=QUALITY)


def by_import(source: Path, workers: int) -> float:
    """Return the seconds of an import, without those in which Python loads libraries, as below."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import scipy.sparse.csgraph  # noqa: F401

    from pud.exchange.importing import ImportConfig, import_pictures

    start = time.perf_counter()
    import_pictures(source, source.parent / "out", ImportConfig(size=SIDE, channels=3, workers=workers), seed=0)
    return time.perf_counter() - start


def by_torchvision(source: Path, workers: int) -> float:
    """Return the seconds of one pass over an ImageFolder."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    change = transforms.Compose([transforms.Resize((SIDE, SIDE)), transforms.ToTensor()])
    start = time.perf_counter()
    pictures = ImageFolder(str(source), change)
    for _ in DataLoader(pictures, batch_size=256, num_workers=workers, multiprocessing_context="fork"):
        pass
    return time.perf_counter() - start


def measured(
    name: str, source: Path, workers: int, results: "multiprocessing.Queue[tuple[float, float, float]]"
) -> None:
    """Put the seconds, those on processors, and the greatest memory of this process in MB, into a queue."""
    seconds = {"import": by_import, "torchvision": by_torchvision}[name](source, workers)
    own, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    busy = own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime
    results.put((seconds, busy, own.ru_maxrss / 1024))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch) / "in", options.pictures, options.seed)
        context = multiprocessing.get_context("spawn")
        for name in ("torchvision", "import", "torchvision", "import"):
            results = context.Queue()
            process = context.Process(target=measured, args=(name, Path(scratch) / "in", options.workers, results))
            process.start()
            seconds, busy, memory = results.get()
            process.join()
            told = {"what": name, "seconds": seconds, "processor_seconds": busy, "memory_mb": memory}
            print(json.dumps({**vars(options), **told, "pictures_per_second": options.pictures / seconds}), flush=True)
