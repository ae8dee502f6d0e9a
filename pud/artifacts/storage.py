"""Data sets by digest out of DVC storage, a local cache or an S3 bucket, and the buckets themselves. The only importer
of minio.

DVC (3.x) stores each file under the md5 of its content, ``files/md5/ab/cdef...``, and a folder as a JSON list of such
files under ``files/md5/ab/cdef....dir``; the md5 of that list is the digest in ``data.dvc``.
"""

import functools
import hashlib
import json
import os
import re
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pud.base.errors import InputError, without_userinfo
from pud.base.files import MAXIMUM_JSON_BYTES, partial_path
from pud.base.progress import say, track

if TYPE_CHECKING:
    from minio import Minio
    from minio.lifecycleconfig import LifecycleConfig

CACHE_VARIABLE, MOUNTED_CACHE = "PUD_DATA_CACHE", Path("/var/cache/pud")  # where pipelines/placement.py mounts a volume
MOUNTED_CA = Path("/etc/pud/ca/ca.crt")  # and the authorities of a site's own
BUCKETS = {"PUD_DATA_BUCKET": "pud-data", "PUD_MLFLOW_BUCKET": "pud-mlflow", "PUD_PIPELINE_BUCKET": "pud-pipelines"}
TEMPORARY_PREFIX, TEMPORARY_DAYS = "tmp/", 7
RUNS_PREFIX, KEPT_DAYS = "runs/", 90  # of the pipeline bucket: what runs left; in all: replaced versions
THREADS = 8
CHUNK, READ_ONLY = 1 << 20, 0o444
CONNECT_SECONDS, READ_SECONDS, RETRIES = 10, 60, 3
# of one file, of a data set: an untrusted store must not fill the disk
MAXIMUM_BYTES, MAXIMUM_TOTAL_BYTES, MAXIMUM_FILES = 16 << 30, 64 << 30, 100_000
DIGEST = re.compile(r"[0-9a-f]{32}\.dir")

Reader = Callable[[str, Path, int], None]  # (key below the store's root, file to write, the most bytes it may get)


def authorities(given: str | None) -> str:
    """Return the PEM file of the authorities to trust: the given one, else a site's own; empty: the public ones."""
    return given or (str(MOUNTED_CA) if MOUNTED_CA.is_file() else "")


@dataclass(frozen=True)
class S3:
    """Where an S3 service is and who asks. Credentials stay out of every text that this prints."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = ""
    ca_bundle: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "S3":
        """Return what AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_CA_BUNDLE say.

        The last two may be left out: the region is then that of Amazon's address, the bundle the mounted one.

        Raises:
            InputError: one that is needed is missing.
        """
        needed = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if missing := [name for name in needed if not environment.get(name)]:
            raise InputError(f"the object store is not configured: set {', '.join(missing)} (see manifests/README.md)")
        endpoint, access_key, secret_key = (environment[name] for name in needed)
        region, ca_bundle = environment.get("AWS_REGION") or "", authorities(environment.get("AWS_CA_BUNDLE"))
        return cls(endpoint, access_key, secret_key, region, ca_bundle)

    def __repr__(self) -> str:
        return f"S3({without_userinfo(self.endpoint)})"

    def client(self) -> "Minio":
        """Return a client that verifies certificates, gives up after some tries and never waits for ever."""
        import urllib3
        from minio import Minio

        url = urllib.parse.urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.netloc or "@" in url.netloc or url.path.strip("/"):
            shown = without_userinfo(self.endpoint)
            raise InputError(f"S3 endpoint {shown!r} is no address: give http(s)://HOST:PORT, keys apart")
        amazon = (url.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
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
            region=self.region or (None if amazon else "us-east-1"),
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
    untrusted = "its certificate is not trusted: name the file of its authority in AWS_CA_BUNDLE"
    otherwise = f"{code or type(error).__name__}: the service does not answer as it should, try again"
    reason = remedies.get(code) or (untrusted if "CERTIFICATE_VERIFY_FAILED" in str(error) else otherwise)
    return f"object store {without_userinfo(s3.endpoint)}: {reason}"


def parse(uri: str) -> tuple[str, str]:
    """Return (bucket, prefix) of ``dvc:s3://BUCKET/PREFIX``, or ("", folder) of ``dvc:FOLDER``, a local cache."""
    place = uri.removeprefix("dvc:")
    if not place.startswith("s3://"):
        return "", place
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not bucket or "@" in bucket:
        shown = without_userinfo(uri)
        raise InputError(f"data URI {shown!r} names no bucket: give dvc:s3://BUCKET/PREFIX, keys apart")
    return bucket, prefix.strip("/")


def reader_of(uri: str) -> Reader:
    """Return what copies an object of the store at ``uri`` into a file; a person's sentence if it cannot."""
    bucket, prefix = parse(uri)
    if not bucket:
        return lambda key, file, maximum: _copy(Path(prefix) / key, file, maximum)
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    s3 = S3.from_environment()
    client = s3.client()

    def read(key: str, file: Path, maximum: int) -> None:
        name = f"{prefix}/{key}".lstrip("/")
        try:
            response = client.get_object(bucket, name)
            try:
                _limited(response, file, name, maximum, int(response.headers.get("Content-Length", 0)))
            finally:
                response.close()
                response.release_conn()
        except (MinioException, HTTPError) as error:
            raise InputError(said(error, s3)) from None  # its text may quote a signed request

    return read


def _copy(source: Path, file: Path, maximum: int) -> None:
    try:
        with source.open("rb") as content:
            _limited(content, file, str(source), maximum)
    except FileNotFoundError as error:
        raise InputError(f"{source} is missing: dvc pull it, or correct the digest") from error


def _limited(source: Any, file: Path, name: str, maximum: int, announced: int = 0) -> None:
    """Copy what can be read from ``source`` into ``file``; what is announced is not trusted, but saves the transfer."""
    with file.open("wb") as out:
        size = announced
        while size <= maximum and (chunk := source.read(CHUNK)):
            out.write(chunk)
            size = max(announced, out.tell())
    if size > maximum:
        raise InputError(f"object {name} holds over {maximum:,} bytes, more than a data set's file may: leave it")


def cache_folder() -> Path:
    """Return where fetched data are kept: PUD_DATA_CACHE, else the mounted volume, else a temporary folder."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    if os.access(MOUNTED_CACHE, os.W_OK):
        return MOUNTED_CACHE
    folder = Path(tempfile.gettempdir()) / "pud-data"
    if MOUNTED_CACHE.is_dir():
        say(f"{MOUNTED_CACHE} cannot be written, data are kept in {folder}: let the volume's owner be group 1000")
    return folder


def materialise(uri: str, digest: str, cache: Path) -> Path:
    """Return a folder below ``cache`` that holds the data set of this digest, read from DVC storage at ``uri``.

    Every file is checked at every use, for others may have changed it: what is missing, be it that an earlier try
    broke, or is not what the listing says is fetched, the rest stays. Files are read-only and are replaced, never
    written, so that other processes may do the same in the same cache, or read.

    Raises:
        InputError: no digest, a store that cannot be read, content that is not what its name says or too large, or a
            cache that cannot take it.
    """
    if not DIGEST.fullmatch(digest):
        raise InputError(f"data digest {digest!r} is no digest: for dvc: data give the md5 in data.dvc, with its .dir")
    store = functools.cache(lambda: reader_of(uri))  # not needed where all is there
    try:
        _complete(lambda key, file, maximum: store()(key, file, maximum), digest, cache)
    except OSError as error:
        raise InputError(
            f"{cache} cannot take the data ({error.strerror or error}): free space there, or set another cache "
            f"in {CACHE_VARIABLE}"
        ) from error
    return cache / digest


def _complete(read: Reader, digest: str, cache: Path) -> None:
    """Fetch what a data set in the cache lacks."""
    folder, listing = cache / digest, cache / "objects" / digest
    if not holds(listing, digest):
        if listing.exists():
            say(f"{listing} is damaged: it is fetched again")
        fetched(read, digest, listing, MAXIMUM_JSON_BYTES, cache)
    files = {folder / name: md5 for name, md5 in listed(listing.read_bytes(), digest).items()}
    for surplus in [path for path in folder.rglob("*") if path not in files and (path.is_symlink() or path.is_file())]:
        say(f"{surplus} is not of the data set: it is removed")
        surplus.unlink(missing_ok=True)
    with ThreadPoolExecutor(THREADS) as pool:
        whole = dict(zip(files, pool.map(holds, files, files.values()), strict=True))
        good, lacking = [file for file in files if whole[file]], [file for file in files if not whole[file]]
        if damaged := [file.relative_to(folder).as_posix() for file in lacking if os.path.lexists(file)]:
            say(f"{len(damaged)} files in {folder} are damaged and fetched again: {repr(damaged)[1:200].rstrip(']')}")
        elif good and lacking:
            say(f"{len(lacking)} files are missing in {folder} and fetched, {len(good)} are there")
        pending = [pool.submit(fetched, read, files[file], file, MAXIMUM_BYTES, cache) for file in lacking]
        try:
            total = 0
            for file in chain(good, (one.result() for one in track(pending, "fetch data"))):
                total += file.stat().st_size
                if total > MAXIMUM_TOTAL_BYTES:
                    raise InputError(f"the data set {digest} holds over {MAXIMUM_TOTAL_BYTES:,} bytes: leave it")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    folder.mkdir(exist_ok=True)  # for a data set without files
    if lacking:
        say(f"data {digest} are in {folder}")
    for path in (folder, listing):
        with suppress(OSError):
            os.utime(path)  # pud gc goes by age


def listed(content: bytes, digest: str) -> dict[str, str]:
    """Return {relative path: md5} of a folder's listing; paths that lead out of the folder are refused."""
    try:
        found = {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(content)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the listing {digest} is no list of files: dvc push the data set again") from error
    if len(found) > MAXIMUM_FILES:
        raise InputError(f"the listing {digest} names {len(found):,} files, more than any data set here: leave it")
    for name, md5 in found.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not re.fullmatch("[0-9a-f]{32}", md5):
            raise InputError(f"the listing {digest} names {name!r}, which leads out of the data set: do not use it")
    return found


def holds(file: Path, md5: str) -> bool:
    """Tell whether a file is there and is what its md5 says."""
    return file.is_file() and not file.is_symlink() and md5_of(file) == md5.removesuffix(".dir")


def fetched(read: Reader, md5: str, file: Path, maximum: int, cache: Path) -> Path:
    """Put the object of this md5 in a file's place, where it is whole or not at all, read-only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(cache / md5)
    try:
        read(f"files/md5/{md5[:2]}/{md5[2:]}", partial, maximum)
        if not holds(partial, md5):
            raise InputError(f"object {md5} of the store does not hold what its name says: dvc push the data again")
        partial.chmod(READ_ONLY)
        partial.replace(file)
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


def lifecycle(bucket: str) -> "LifecycleConfig":
    """Return what goes from a bucket by itself: temporary objects, broken uploads, replaced versions, old runs."""
    from minio.commonconfig import ENABLED, Filter
    from minio.lifecycleconfig import (
        AbortIncompleteMultipartUpload,
        Expiration,
        LifecycleConfig,
        NoncurrentVersionExpiration,
        Rule,
    )

    def rule(name: str, prefix: str, **what: Any) -> Rule:
        return Rule(ENABLED, rule_id=name, rule_filter=Filter(prefix=prefix), **what)

    broken = AbortIncompleteMultipartUpload(days_after_initiation=TEMPORARY_DAYS)
    replaced = NoncurrentVersionExpiration(noncurrent_days=KEPT_DAYS)
    rules = [
        rule("temporary", TEMPORARY_PREFIX, expiration=Expiration(days=TEMPORARY_DAYS)),
        rule("leftovers", "", abort_incomplete_multipart_upload=broken, noncurrent_version_expiration=replaced),
    ]
    if bucket == bucket_names()[-1]:
        rules.append(rule("runs", RUNS_PREFIX, expiration=Expiration(days=KEPT_DAYS)))
    return LifecycleConfig(rules)


def bootstrap(s3: S3, buckets: Iterable[str]) -> list[str]:
    """Make the buckets that are missing, keep versions in all of them, and let expire what nobody needs.

    Safe to run again. Returns a sentence for each bucket.

    Raises:
        InputError: the service cannot be reached or refuses.
    """
    from minio.commonconfig import ENABLED
    from minio.error import MinioException
    from minio.versioningconfig import VersioningConfig
    from urllib3.exceptions import HTTPError

    client = s3.client()
    done = []
    for bucket in buckets:
        try:
            new = not client.bucket_exists(bucket)
            if new:
                client.make_bucket(bucket)
            client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
            client.set_bucket_lifecycle(bucket, lifecycle(bucket))
        except (MinioException, HTTPError) as error:
            raise InputError(said(error, s3)) from None
        done.append(f"bucket {bucket}: {'made' if new else 'was there'}, versioned, {TEMPORARY_PREFIX} expires")
    return done
