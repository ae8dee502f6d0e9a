"""Step poison: a clean data set in, a poisoned data set and its ground truth out."""

import dataclasses
from pathlib import Path

from pud.data import folder_digest, open_split, write_split
from pud.device import prepare_process, random_stream, resolve_device
from pud.errors import InputError
from pud.poisoning import PoisonConfig, poison
from pud.steps.artifacts import timed_folder
from pud.steps.truth import save_truth


def data_folder(data_uri: str, data_digest: str) -> Path:
    """Return the folder of the data set at a URI: ``file:FOLDER``, or ``dvc:`` and DVC storage, fetched by digest."""
    scheme, _, place = data_uri.partition(":")
    if scheme == "dvc" and place:
        from pud.storage import cache_folder, materialise  # minio is for those who need it

        return materialise(data_uri, data_digest, cache_folder())
    if scheme != "file" or not place:
        raise InputError(
            f"data URI {data_uri!r} is not supported: give file:FOLDER such as file:data, dvc:s3://BUCKET/PREFIX, or "
            "dvc:CACHE such as dvc:.dvc/cache"
        )
    return Path(place)


def poison_step(
    data_uri: str,
    data_digest: str,
    config: PoisonConfig,
    *,
    seed: int,
    device: str = "auto",
    dataset: Path,
    ground_truth: Path,
) -> dict[str, float]:
    """Poison the data set at ``data_uri`` into the folders ``dataset`` and ``ground_truth``.

    Args:
        data_digest: the digest in ``data.dvc`` that the data must have; empty to skip the check.

    Raises:
        InputError: data that are missing, corrupt or of another digest, or settings that cannot be.
    """
    prepare_process()
    where = resolve_device(device)
    source = data_folder(data_uri, data_digest)
    digest = folder_digest(source)
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
        images, labels, truth = poison(train, test, config, generator=generator, device=where)
        write_split(folder / "train", images, labels, classes=train.classes, name=train.name, source=digest)
        write_split(folder / "test", test.images, test.labels, classes=test.classes, name=test.name, source=digest)
        save_truth(truth_folder, truth, {**dataclasses.asdict(config), "seed": seed, "source": digest})
    return {"images": len(labels), "poisoned_images": int(truth.poisoned.sum())}
