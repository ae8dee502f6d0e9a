"""Data by digest out of a real S3 server and of a local DVC cache; buckets; everything that can go wrong with them."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import ADMIN, READER, ObjectStore, environment_of

import pud.storage
from pud.data import folder_digest
from pud.errors import InputError
from pud.poisoning import PoisonConfig
from pud.steps.poison import data_folder, poison_step
from pud.storage import CACHE_VARIABLE, S3, bootstrap, bucket_names, listed, materialise, md5_of

URI = "dvc:s3://pud-data/store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    server = ObjectStore(tmp_path_factory.mktemp("store") / "weed")
    try:
        server.start()
        bootstrap(server.as_admin(), bucket_names({}))
        yield server
    finally:
        server.close()


@pytest.fixture
def reader(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The identity of a pipeline's pod, in the environment."""
    for name, value in environment_of(store.as_reader()).items():
        monkeypatch.setenv(name, value)
    return store.as_reader()


def dvc(*arguments: str, cwd: Path, s3: S3, code: int = 0) -> str:
    tool = Path(sys.executable).with_name("dvc")
    environment = {**os.environ, **environment_of(s3), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run([tool, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def pushed(store: ObjectStore, sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A DVC project whose data are pushed to the store, and their digest."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(sample_folder, project / "data")
    dvc("init", "--no-scm", "--quiet", cwd=project, s3=store.as_admin())
    dvc("remote", "add", "--default", "store", "s3://pud-data/store", cwd=project, s3=store.as_admin())
    dvc("remote", "modify", "store", "endpointurl", store.endpoint, cwd=project, s3=store.as_admin())
    dvc("add", "--quiet", "data", cwd=project, s3=store.as_admin())
    dvc("push", "--quiet", cwd=project, s3=store.as_admin())
    return project, folder_digest(project / "data")


def test_a_reader_gets_what_dvc_pushed_and_keeps_it(
    pushed: tuple[Path, str], reader: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, digest = pushed
    folder = materialise(URI, digest, tmp_path)
    assert folder_digest(folder) == digest == folder_digest(project / "data")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert materialise(URI, digest, tmp_path) == folder


def test_dvc_pulls_back_what_it_pushed(pushed: tuple[Path, str], store: ObjectStore) -> None:
    project, digest = pushed
    shutil.rmtree(project / "data")
    other = project / ".dvc" / "cache"
    shutil.move(other, project / "cache-elsewhere")
    dvc("pull", "--quiet", cwd=project, s3=store.as_admin())
    assert folder_digest(project / "data") == digest


def test_the_same_code_reads_the_local_cache(pushed: tuple[Path, str], tmp_path: Path) -> None:
    project, digest = pushed
    assert folder_digest(materialise(f"dvc:{project / '.dvc/cache'}", digest, tmp_path)) == digest


def test_poison_takes_its_data_by_digest(
    pushed: tuple[Path, str], reader: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    folders = {"dataset": tmp_path / "dataset", "ground_truth": tmp_path / "truth"}
    values = poison_step(URI, pushed[1], PoisonConfig(train_size=500), seed=0, **folders)
    assert values["images"] == 500
    made = json.loads((tmp_path / "dataset/train/dataset.json").read_text())
    assert made["source"] == pushed[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "access key is unknown"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "secret key is wrong"),
        ({"AWS_ENDPOINT_URL_S3": ""}, "set AWS_ENDPOINT_URL_S3"),
        ({"AWS_ENDPOINT_URL_S3": "127.0.0.1"}, "no address"),
        ({"AWS_CA_BUNDLE": "no-such.pem"}, "CA bundle"),
    ],
)
def test_a_wrong_identity_or_address_is_one_sentence_without_secrets(
    change: dict[str, str],
    words: str,
    pushed: tuple[Path, str],
    reader: S3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words) as caught:
        materialise(URI, pushed[1], tmp_path)
    assert caught.value.__cause__ is None
    assert not any(secret in str(caught.value) for secret in (READER[1], "wrong-secret"))


def test_a_missing_bucket_object_or_digest_is_one_sentence(
    pushed: tuple[Path, str], reader: S3, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"missing"):
        materialise(URI, "0" * 32 + ".dir", tmp_path)
    with pytest.raises(InputError, match=r"give the md5 in data.dvc"):
        materialise(URI, "", tmp_path)
    with pytest.raises(InputError, match="may not do that"):
        materialise("dvc:s3://pud-mlflow/store", pushed[1], tmp_path)
    for name, value in environment_of(store.as_admin()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"pud bootstrap|missing"):
        materialise("dvc:s3://no-such-bucket/store", pushed[1], tmp_path)


def test_a_broken_fetch_goes_on_where_it_was(
    pushed: tuple[Path, str], reader: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = pushed[1]
    original, calls = pud.storage.fetched, []

    def failing(read: pud.storage.Reader, md5: str, parts: Path) -> Path:
        if len(list(parts.glob("[0-9a-f]*"))) >= 3 and len(calls) == 0:
            calls.append(md5)
            raise InputError("the network is gone")
        return original(read, md5, parts)

    monkeypatch.setattr(pud.storage, "THREADS", 1)
    monkeypatch.setattr(pud.storage, "fetched", failing)
    with pytest.raises(InputError, match="network"):
        materialise(URI, digest, tmp_path)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "objects").iterdir()}
    assert kept
    assert not (tmp_path / digest).exists()
    folder = materialise(URI, digest, tmp_path)
    assert folder_digest(folder) == digest
    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "objects").iterdir()}.items()


def test_what_is_not_what_its_name_says_is_refused(pushed: tuple[Path, str], tmp_path: Path) -> None:
    project, digest = pushed
    cache = tmp_path / "cache"
    shutil.copytree(project / ".dvc/cache", cache)
    victim = next(path for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".dir"))
    victim.chmod(0o644)
    victim.write_bytes(b"other")
    with pytest.raises(InputError, match="does not hold what its name says"):
        materialise(f"dvc:{cache}", digest, tmp_path / "out")
    assert not (tmp_path / "out" / digest).exists()


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b"])
def test_a_listing_cannot_lead_out_of_the_data_set(name: str) -> None:
    with pytest.raises(InputError, match="leads out"):
        listed(json.dumps([{"relpath": name, "md5": "0" * 32}]).encode(), "x.dir")


def test_an_object_that_is_too_large_is_refused_before_it_is_fetched(
    pushed: tuple[Path, str], reader: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pud.storage, "MAXIMUM_BYTES", 100)
    with pytest.raises(InputError, match="more than a data set"):
        materialise(URI, pushed[1], tmp_path)


def test_a_full_disk_is_one_sentence(pushed: tuple[Path, str], tmp_path: Path) -> None:
    def full(key: str, file: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=f"No space left on device.*{CACHE_VARIABLE}"):
        pud.storage.fetched(full, "0" * 32, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bootstrap_makes_versioned_buckets_and_may_run_again(store: ObjectStore) -> None:
    client = store.as_admin().client()
    for bucket in bucket_names({}):
        assert client.get_bucket_versioning(bucket).status == "Enabled"
        (rule,) = client.get_bucket_lifecycle(bucket).rules
        assert rule.rule_filter.prefix == "tmp/"
    assert all("was there" in line for line in bootstrap(store.as_admin(), bucket_names({})))


def test_a_read_only_identity_cannot_bootstrap(store: ObjectStore) -> None:
    with pytest.raises(InputError, match="may not do that"):
        bootstrap(store.as_reader(), ["pud-new"])


def test_a_store_killed_in_the_middle_of_a_push_loses_nothing_once_it_is_back(
    store: ObjectStore, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    for number in range(40):
        (project / "data" / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    admin = store.as_admin()
    dvc("init", "--no-scm", "--quiet", cwd=project, s3=admin)
    dvc("remote", "add", "--default", "store", "s3://pud-data/killed", cwd=project, s3=admin)
    dvc("remote", "modify", "store", "endpointurl", store.endpoint, cwd=project, s3=admin)
    dvc("add", "--quiet", "data", cwd=project, s3=admin)
    threading.Timer(2.5, store.kill).start()
    environment = {**os.environ, **environment_of(admin), "DVC_NO_ANALYTICS": "1"}
    tool = Path(sys.executable).with_name("dvc")
    first = subprocess.Popen(
        [tool, "push", "--quiet", "--jobs", "1"], cwd=project, env=environment, stderr=subprocess.DEVNULL
    )
    time.sleep(4)
    store.kill()
    store.start()
    first.wait(timeout=120)
    dvc("push", "--quiet", cwd=project, s3=admin)
    digest = folder_digest(project / "data")
    os.environ.update(environment_of(admin))
    try:
        assert folder_digest(materialise("dvc:s3://pud-data/killed", digest, tmp_path / "cache")) == digest
    finally:
        for name in environment_of(admin):
            os.environ.pop(name)


def test_the_repr_of_an_identity_hides_its_keys() -> None:
    assert not any(text in repr(S3("http://host:1", *ADMIN)) for text in ADMIN)


def test_other_uris_are_refused_with_the_ones_that_work() -> None:
    with pytest.raises(InputError, match="dvc:s3://BUCKET/PREFIX"):
        data_folder("http://example/data", "")


def test_md5_is_that_of_dvc(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert md5_of(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"
