"""Data sets by digest out of DVC storage, a local cache or an S3 bucket, and the buckets themselves. The only importer
of minio.

DVC (3.x) stores each file under the md5 of its content, ``files/md5/ab/cdef...``, and a folder as a JSON list of such
files under ``files/md5/ab/cdef....dir``; the md5 of that list is the digest in ``data.dvc``.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pud.errors import InputError
from pud.files import finished_folder
from pud.progress import say, track

if TYPE_CHECKING:
    from minio import Minio

CACHE_VARIABLE, MOUNTED_CACHE = "PUD_DATA_CACHE", Path("/var/cache/pud")  # where pipelines/placement.py mounts a volume
BUCKETS = {"PUD_DATA_BUCKET": "pud-data", "PUD_MLFLOW_BUCKET": "pud-mlflow", "PUD_PIPELINE_BUCKET": "pud-pipelines"}
TEMPORARY_PREFIX, TEMPORARY_DAYS = "tmp/", 7
THREADS = 8
CHUNK = 1 << 20
CONNECT_SECONDS, READ_SECONDS, RETRIES = 10, 60, 3
MAXIMUM_BYTES = 16 << 30  # of one file: an untrusted store must not fill the disk
DIGEST = re.compile(r"[0-9a-f]{32}\.dir")

Reader = Callable[[str, Path], None]  # (key below the store's root, file to write)


@dataclass(frozen=True)
class S3:
    """Where an S3 service is and who asks. Credentials stay out of every text that this prints."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    ca_bundle: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "S3":
        """Return what AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_CA_BUNDLE say.

        Raises:
            InputError: one that is needed is missing.
        """
        needed = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if missing := [name for name in needed if not environment.get(name)]:
            raise InputError(f"the object store is not configured: set {', '.join(missing)} (see manifests/README.md)")
        endpoint, access_key, secret_key = (environment[name] for name in needed)
        region, ca_bundle = environment.get("AWS_REGION", cls.region), environment.get("AWS_CA_BUNDLE", "")
        return cls(endpoint, access_key, secret_key, region, ca_bundle)

    def __repr__(self) -> str:
        return f"S3({self.endpoint})"

    def client(self) -> "Minio":
        """Return a client that verifies certificates, gives up after some tries and never waits for ever."""
        import urllib3
        from minio import Minio

        url = urllib.parse.urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/"):
            raise InputError(f"S3 endpoint {self.endpoint!r} is no address: give http(s)://HOST:PORT")
        if self.ca_bundle and not Path(self.ca_bundle).is_file():
            raise InputError(f"CA bundle {self.ca_bundle} is missing: correct AWS_CA_BUNDLE")
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            maxsize=THREADS,
            retries=urllib3.Retry(RETRIES, backoff_factor=0.5, status_forcelist=(500, 502, 503, 504)),
            cert_reqs="CERT_REQUIRED",
            ca_certs=self.ca_bundle or None,
        )
        return Minio(
            url.netloc,
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
            secure=url.scheme == "https",
            http_client=pool,
        )


def said(error: Exception, s3: S3) -> str:
    """Return what went wrong at an S3 service in a person's words, and what to do."""
    code = getattr(error, "code", "")
    remedies = {
        "InvalidAccessKeyId": "the access key is unknown: check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
        "AccessDenied": "this identity may not do that: use one with the rights in manifests/README.md",
        "NoSuchBucket": f"bucket {getattr(error, '_bucket_name', '')} is missing: run pud bootstrap",
        "NoSuchKey": "the object is missing: dvc push it, or correct the digest",
    }
    reason = (
        remedies.get(code) or f"{code or type(error).__name__}: the service does not answer as it should, try again"
    )
    return f"object store {s3.endpoint}: {reason}"


def parse(uri: str) -> tuple[str, str]:
    """Return (bucket, prefix) of ``dvc:s3://BUCKET/PREFIX``, or ("", folder) of ``dvc:FOLDER``, a local cache."""
    place = uri.removeprefix("dvc:")
    if not place.startswith("s3://"):
        return "", place
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not bucket:
        raise InputError(f"data URI {uri!r} names no bucket: give dvc:s3://BUCKET/PREFIX")
    return bucket, prefix.strip("/")


def reader_of(uri: str) -> Reader:
    """Return what copies an object of the store at ``uri`` into a file; a person's sentence if it cannot."""
    bucket, prefix = parse(uri)
    if not bucket:
        return lambda key, file: _copy(Path(prefix) / key, file)
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    s3 = S3.from_environment()
    client = s3.client()

    def read(key: str, file: Path) -> None:
        name = f"{prefix}/{key}".lstrip("/")
        try:
            response = client.get_object(bucket, name)
            try:
                size = int(response.headers.get("Content-Length", 0))
                if size > MAXIMUM_BYTES:
                    raise InputError(f"object {name} holds {size:,} bytes, more than a data set's file may: leave it")
                with file.open("wb") as out:
                    shutil.copyfileobj(response, out, CHUNK)
            finally:
                response.close()
                response.release_conn()
        except (MinioException, HTTPError) as error:
            raise InputError(said(error, s3)) from None  # its text may quote a signed request

    return read


def _copy(source: Path, file: Path) -> None:
    try:
        shutil.copyfile(source, file)
    except FileNotFoundError as error:
        raise InputError(f"{source} is missing: dvc pull it, or correct the digest") from error


def cache_folder() -> Path:
    """Return where fetched data are kept: PUD_DATA_CACHE, else the mounted volume, else a temporary folder."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    mounted = os.access(MOUNTED_CACHE, os.W_OK)
    return MOUNTED_CACHE if mounted else Path(tempfile.gettempdir()) / "pud-data"


def materialise(uri: str, digest: str, cache: Path) -> Path:
    """Return a folder below ``cache`` that holds the data set of this digest, read from DVC storage at ``uri``.

    Files are fetched in parallel and checked; those that an earlier, broken try left are not fetched again.

    Raises:
        InputError: no digest, a store that cannot be read, or content that is not what its name says.
    """
    if not DIGEST.fullmatch(digest):
        raise InputError(f"data digest {digest!r} is no digest: for dvc: data give the md5 in data.dvc, with its .dir")
    folder = cache / digest
    if folder.is_dir():
        return folder
    read = reader_of(uri)
    parts = cache / "objects"
    parts.mkdir(parents=True, exist_ok=True)
    listing = listed(fetched(read, digest, parts).read_bytes(), digest)
    with ThreadPoolExecutor(THREADS) as pool:
        pending = [pool.submit(fetched, read, md5, parts) for md5 in sorted(set(listing.values()))]
        try:
            for one in track(pending, "fetch data"):
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    with finished_folder(folder) as out:
        for name, md5 in listing.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                (out / name).hardlink_to(parts / md5)
            except OSError:
                shutil.copyfile(parts / md5, out / name)
    say(f"data {digest} are in {folder}")
    return folder


def listed(content: bytes, digest: str) -> dict[str, str]:
    """Return {relative path: md5} of a folder's listing; paths that lead out of the folder are refused."""
    try:
        found = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the listing {digest} is no list of files: dvc push the data set again") from error
    for name, md5 in found.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not re.fullmatch("[0-9a-f]{32}", md5):
            raise InputError(f"the listing {digest} names {name!r}, which leads out of the data set: do not use it")
    return found


def fetched(read: Reader, md5: str, parts: Path) -> Path:
    """Return the file of this md5 in ``parts``, fetched first where it is not there."""
    file = parts / md5
    if file.is_file():
        return file
    partial = parts / f"{md5}.partial-{os.getpid()}-{threading.get_ident()}"
    try:
        read(f"files/md5/{md5[:2]}/{md5[2:]}", partial)
        if md5_of(partial) != md5.removesuffix(".dir"):
            raise InputError(f"object {md5} of the store does not hold what its name says: dvc push the data again")
        partial.replace(file)
    except OSError as error:
        raise InputError(
            f"{parts} cannot take the data ({error.strerror}): free space there, or set another cache "
            f"in {CACHE_VARIABLE}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return file


def md5_of(path: Path) -> str:
    """Return the hex md5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


# ------------------------------------------------------------------------------------------------------------ buckets


def bucket_names(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the three buckets."""
    return [environment.get(variable) or name for variable, name in BUCKETS.items()]


def bootstrap(s3: S3, buckets: Iterable[str]) -> list[str]:
    """Make the buckets that are missing, keep versions in all of them, and let temporary objects expire.

    Safe to run again. Returns a sentence for each bucket.

    Raises:
        InputError: the service cannot be reached or refuses.
    """
    from minio.commonconfig import ENABLED, Filter
    from minio.error import MinioException
    from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
    from minio.versioningconfig import VersioningConfig
    from urllib3.exceptions import HTTPError

    client = s3.client()
    expiry = Rule(
        ENABLED,
        rule_id="temporary",
        rule_filter=Filter(prefix=TEMPORARY_PREFIX),
        expiration=Expiration(days=TEMPORARY_DAYS),
    )
    done = []
    for bucket in buckets:
        try:
            new = not client.bucket_exists(bucket)
            if new:
                client.make_bucket(bucket)
            client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
            client.set_bucket_lifecycle(bucket, LifecycleConfig([expiry]))
        except (MinioException, HTTPError) as error:
            raise InputError(said(error, s3)) from None
        done.append(f"bucket {bucket}: {'made' if new else 'was there'}, versioned, {TEMPORARY_PREFIX} expires")
    return done
