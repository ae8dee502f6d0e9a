"""Step poison: a clean data set in, a poisoned data set and its ground truth out."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from pud.artifacts.ground_truth import save_truth
from pud.artifacts.timing import timed_folder
from pud.attacks import attack_config
from pud.attacks.poisoning import PoisonConfig, poison
from pud.base.config import as_parameters
from pud.base.device import prepare_process, random_stream, resolve_device
from pud.base.errors import InputError
from pud.data.images import folder_digest
from pud.data.readers import open_split
from pud.data.readers.npy import write_split


def data_folder(data_uri: str, data_digest: str) -> tuple[Path, str]:
    """Return the folder of a data set, and the digest by which every file in it was checked on the way.

    Args:
        data_uri: FOLDER or ``file:FOLDER``, of which nothing was checked (an empty digest), or ``dvc:`` and DVC
            storage, of which all is fetched by ``data_digest``.
    """
    if Path(data_uri).is_dir():
        return Path(data_uri), ""
    scheme, _, place = data_uri.partition(":")
    if scheme == "dvc" and place:
        from pud.artifacts.storage import cache_folder, materialise  # minio is for those who need it

        return materialise(data_uri, data_digest, cache_folder()), data_digest
    if scheme != "file" or not place:
        raise InputError(
            f"data URI {data_uri!r} is not supported: give file:FOLDER such as file:data, dvc:s3://BUCKET/PREFIX, or "
            "dvc:CACHE such as dvc:.dvc/cache"
        )
    return Path(place), ""


def poison_step(
    data_uri: str,
    data_digest: str,
    config: PoisonConfig,
    strength: Any = None,
    *,
    seed: int,
    device: str = "auto",
    maximum_gib: float = math.inf,
    dataset: Path,
    ground_truth: Path,
) -> dict[str, float]:
    """Poison the data set at ``data_uri`` into the folders ``dataset`` and ``ground_truth``.

    Args:
        data_digest: the digest in ``data.dvc`` that the data must have; empty to skip the check.
        strength: the attack's own config, see ``pud.attacks.attack_config``; None: its defaults.
        maximum_gib: what the disks of the steps that follow have room for.

    Raises:
        InputError: data that are missing, corrupt, too large or of another digest, or settings that cannot be.
    """
    prepare_process()
    where = resolve_device(device)
    strength = strength or attack_config(config.attack, {})
    source, checked = data_folder(data_uri, data_digest)
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) / 2**30
    if size > maximum_gib:
        raise InputError(
            f"the data in {source} hold {size:.2f} GiB, and this pipeline's pods have disks for {maximum_gib:g}: "
            f"compile it for more (make compile DATA_GIB={math.ceil(size)}) and submit that"
        )
    digest = checked or folder_digest(source)
    if data_digest and digest != data_digest:
        raise InputError(
            f"the data in {source} have the digest {digest}, not {data_digest} as asked for: "
            "restore them (dvc checkout, or pud fetch) or give their own digest"
        )
    train, test = open_split(source / "train"), open_split(source / "test")
    if train.images.shape[1:] != test.images.shape[1:] or train.classes != test.classes:
        raise InputError(
            f"{source}: train and test differ in image shape or classes, give a data set in which both agree"
        )
    with (
        timed_folder(ground_truth, "poison", "ground_truth.json", source, dataset) as truth_folder,
        timed_folder(dataset, "poison", "train/dataset.json", source, ground_truth) as folder,
    ):
        generator = random_stream(seed, "poison")
        images, labels, truth = poison(train, test, config, strength, generator=generator, device=where)
        write_split(folder / "train", images, labels, classes=train.classes, name=train.name, source=digest)
        write_split(folder / "test", test.images, test.labels, classes=test.classes, name=test.name, source=digest)
        how = {**dataclasses.asdict(config), "attack_settings": as_parameters(strength)}
        save_truth(truth_folder, truth, {**how, "seed": seed, "source": digest})
    return {"images": len(labels), "poisoned_images": int(truth.poisoned.sum())}
