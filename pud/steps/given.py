"""Where what a run starts from lies: the folder of a data set, the file or folder of a model."""

import math
from pathlib import Path

from pud.base.errors import InputError, without_userinfo
from pud.base.files import sha256
from pud.data.images import folder_digest

MAXIMUM_MODEL_BYTES = 8 << 30


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


def given_data(data_uri: str, data_digest: str, maximum_gib: float = math.inf) -> tuple[Path, str]:
    """Return the folder of a data set and its digest, that in ``data.dvc``.

    Args:
        data_uri: see ``data_folder``.
        data_digest: the digest that it must have; empty to skip the check.
        maximum_gib: what the disks of the steps that follow have room for.

    Raises:
        InputError: it is missing, too large or of another digest.
    """
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
    return source, digest


def given_model(model_uri: str, model_digest: str, scratch: Path) -> Path:
    """Return the file or the folder of a model.

    Args:
        model_uri: PATH or ``file:PATH``; ``s3://BUCKET/KEY`` of a file, fetched into ``scratch``; or ``dvc:`` and DVC
            storage of a folder.
        model_digest: sha256 of a file, DVC's digest of a folder; empty to skip the check.

    Raises:
        InputError: it is missing or of another digest.
    """
    if model_uri.startswith("s3://"):
        from pud.artifacts.storage import reader_of

        place, _, name = model_uri.rpartition("/")
        path = scratch / (name or "model")
        reader_of(place)(name, path, MAXIMUM_MODEL_BYTES)
    elif model_uri.startswith("dvc:"):
        return data_folder(model_uri, model_digest)[0]
    else:
        path = Path(model_uri.removeprefix("file:"))
    if not path.exists():
        raise InputError(
            f"there is no model at {without_userinfo(model_uri)}: give a file of weights, a folder with model.json, "
            "or s3://BUCKET/KEY"
        )
    digest = model_digest and (folder_digest(path) if path.is_dir() else sha256(path))
    if digest != model_digest:
        raise InputError(
            f"the model {without_userinfo(model_uri)} has the digest {digest}, not {model_digest} as asked for: "
            "get it again, or give its own digest"
        )
    return path
