"""Data by digest out of a real S3 server and of a local DVC cache; buckets; everything that can go wrong with them."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import ADMIN, READER, Endless, ObjectStore, environment_of, self_signed

import pud.artifacts.storage
from pud.artifacts.storage import (
    CACHE_VARIABLE,
    KEPT_DAYS,
    S3,
    bootstrap,
    bucket_names,
    cache_folder,
    listed,
    materialise,
    md5_of,
)
from pud.attacks.poisoning import PoisonConfig
from pud.base.errors import InputError
from pud.data.images import folder_digest
from pud.platform.cleanup import find_data, remove
from pud.steps.given import data_folder
from pud.steps.poison import poison_step

pytestmark = pytest.mark.cluster

URI = "dvc:s3://pud-data/store"
FILES = 6  # of a data set
EMPTY = "d751713988987e9331980363e24189ce.dir"  # the digest of a data set without files


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
    os.utime(folder, (0, 0))
    assert materialise(URI, digest, tmp_path) == folder
    assert find_data(tmp_path, 30) == []


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
        ({"AWS_ENDPOINT_URL_S3": "http://somebody:wrong-secret@127.0.0.1:9"}, "no address"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "try again"),
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
    with pytest.raises(InputError, match="names no bucket") as caught:
        materialise("dvc:s3://somebody:opensesame@pud-data/store", pushed[1], tmp_path)
    assert "sesame" not in str(caught.value)
    for name, value in environment_of(store.as_admin()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"pud bootstrap|missing"):
        materialise("dvc:s3://no-such-bucket/store", pushed[1], tmp_path)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return which file, and of when, is at each path: a replaced one is another file."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(folder).as_posix(): (one.st_ino, one.st_mtime_ns) for path, one in found.items()}


def test_a_broken_fetch_goes_on_where_it_was(
    pushed: tuple[Path, str], reader: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, folder = pushed[1], tmp_path / pushed[1]
    original = pud.artifacts.storage.fetched

    def failing(read: pud.artifacts.storage.Reader, md5: str, file: Path, maximum: int, cache: Path) -> Path:
        if len(state(folder)) >= 3:
            raise InputError("the network is gone")
        return original(read, md5, file, maximum, cache)

    monkeypatch.setattr(pud.artifacts.storage, "THREADS", 1)
    monkeypatch.setattr(pud.artifacts.storage, "fetched", failing)
    with pytest.raises(InputError, match="network"):
        materialise(URI, digest, tmp_path)
    kept = state(folder)
    assert len(kept) == 3
    monkeypatch.setattr(pud.artifacts.storage, "fetched", original)
    assert folder_digest(materialise(URI, digest, tmp_path)) == digest
    assert kept.items() < state(folder).items()
    assert sum(path.is_file() for path in (tmp_path / "objects").iterdir()) == 1  # the listing: data are kept once


Damage = Callable[[Path], object]


def overwritten(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(b"other")


def linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to(file.with_name("elsewhere"))


@pytest.mark.parametrize("damage", [overwritten, linked, Path.unlink])
def test_a_cache_heals_what_was_changed_and_leaves_the_rest(
    damage: Damage, pushed: tuple[Path, str], reader: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = pushed[1]
    folder = materialise(URI, digest, tmp_path)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o444}
    before = state(folder)
    with (folder / "train/images.npy").open("rb") as read_by_another:
        damage(folder / "train/images.npy")
        capsys.readouterr()
        assert materialise(URI, digest, tmp_path) == folder
        said = [line for line in capsys.readouterr().err.splitlines() if "fetched" in line]
        after = state(folder)
        (folder / "train/elsewhere").unlink(missing_ok=True)
        assert folder_digest(folder) == digest
        assert {name for name in before if before[name] != after[name]} == {"train/images.npy"}
        assert len(said) == 1
        assert ("train/images.npy" in said[0]) == (damage is not Path.unlink)
        assert os.fstat(read_by_another.fileno()).st_ino == before["train/images.npy"][0]
    assert list(tmp_path.rglob("*partial*")) == []


@pytest.mark.parametrize(
    "put", [Path.touch, lambda path: path.symlink_to("/etc")], ids=["a file", "a link to a folder"]
)
def test_what_does_not_belong_into_a_data_set_is_said_and_removed(
    put: Damage, pushed: tuple[Path, str], reader: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = materialise(URI, pushed[1], tmp_path)
    put(folder / "train" / "more")
    assert folder_digest(materialise(URI, pushed[1], tmp_path)) == pushed[1]
    assert "is not of the data set: it is removed" in capsys.readouterr().err
    assert not (folder / "train" / "more").is_symlink()
    assert Path("/etc/passwd").is_file()


def test_a_damaged_listing_is_fetched_again(
    pushed: tuple[Path, str], reader: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = materialise(URI, pushed[1], tmp_path), state(tmp_path / pushed[1])
    overwritten(tmp_path / "objects" / pushed[1])
    materialise(URI, pushed[1], tmp_path)
    assert "is damaged: it is fetched again" in capsys.readouterr().err
    assert state(folder) == before


def test_changing_a_copy_changes_nothing_else(pushed: tuple[Path, str], tmp_path: Path) -> None:
    project, digest = pushed
    folder = materialise(f"dvc:{project / '.dvc/cache'}", digest, tmp_path)
    assert {path.stat().st_nlink for path in tmp_path.rglob("*") if path.is_file()} == {1}
    overwritten(folder / "train/labels.npy")
    assert folder_digest(materialise(f"dvc:{project / '.dvc/cache'}", digest, tmp_path)) == digest


def test_what_the_cache_holds_can_be_removed_though_it_is_read_only(
    pushed: tuple[Path, str], reader: S3, tmp_path: Path
) -> None:
    folder = materialise(URI, pushed[1], tmp_path)
    for path in (folder, tmp_path / "objects" / pushed[1]):
        os.utime(path, (0, 0))
    remove(find_data(tmp_path, 30))
    assert [path.name for path in tmp_path.rglob("*")] == ["objects"]


def test_what_is_not_what_its_name_says_is_refused(pushed: tuple[Path, str], tmp_path: Path) -> None:
    project, digest = pushed
    cache = tmp_path / "cache"
    shutil.copytree(project / ".dvc/cache", cache)
    victim = next(path for path in cache.rglob("*") if path.is_file() and not path.name.endswith(".dir"))
    overwritten(victim)
    with pytest.raises(InputError, match="does not hold what its name says"):
        materialise(f"dvc:{cache}", digest, tmp_path / "out")
    assert len(state(tmp_path / "out" / digest)) < FILES


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", "a\0b"])
def test_a_listing_cannot_lead_out_of_the_data_set(name: str) -> None:
    with pytest.raises(InputError, match="leads out"):
        listed(json.dumps([{"relpath": name, "md5": "0" * 32}]).encode(), "x.dir")


@pytest.mark.parametrize("content", [b"", b"{}{}", b"[1]", b'[{"relpath": "a"}]', b"[" * 100_000])
def test_a_listing_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="no list of files"):
        listed(content, "x.dir")


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("MAXIMUM_BYTES", 100, "more than a data set's file"),
        ("MAXIMUM_JSON_BYTES", 100, "more than a data set's file"),
        ("MAXIMUM_FILES", 3, "names 6 files"),
        ("MAXIMUM_TOTAL_BYTES", 100_000, "holds over 100,000 bytes"),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_what_is_too_large_is_refused(
    limit: str,
    value: int,
    words: str,
    local: bool,
    pushed: tuple[Path, str],
    reader: S3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pud.artifacts.storage, limit, value)
    for _ in range(2):  # what the first try left is refused too
        with pytest.raises(InputError, match=words):
            materialise(f"dvc:{pushed[0] / '.dvc/cache'}" if local else URI, pushed[1], tmp_path)


def test_an_object_without_a_length_is_refused_when_it_has_sent_too_much(
    reader: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(pud.artifacts.storage, "MAXIMUM_JSON_BYTES", 10 << 20)
    try:
        with pytest.raises(InputError, match="holds over 10,485,760 bytes"):
            materialise(URI, "0" * 32 + ".dir", tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert list((tmp_path / "objects").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, less than the sample."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence(pushed: tuple[Path, str], reader: S3, small_disk: Path) -> None:
    with pytest.raises(InputError, match=f"No space left on device.*{CACHE_VARIABLE}"):
        materialise(URI, pushed[1], small_disk)
    assert list(small_disk.rglob("*partial*")) == []


def test_a_cache_that_is_no_folder_is_one_sentence(pushed: tuple[Path, str], reader: S3, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"cannot take the data.*{CACHE_VARIABLE}"):
        materialise(URI, pushed[1], tmp_path / "file")


def test_a_mounted_volume_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(pud.artifacts.storage, "MOUNTED_CACHE", tmp_path)
    assert cache_folder() == tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # this may run as root, who may write everywhere
    assert cache_folder() != tmp_path
    assert f"{tmp_path} cannot be written" in capsys.readouterr().err


def test_many_at_once_get_the_same_data(pushed: tuple[Path, str], reader: S3, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: materialise(URI, pushed[1], tmp_path), range(4)))
    assert {folder_digest(folder) for folder in folders} == {pushed[1]}
    assert list(tmp_path.rglob("*partial*")) == []


def test_a_certificate_is_trusted_by_its_bundle_alone(
    sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ObjectStore(tmp_path / "weed", certificate=self_signed(tmp_path))
    try:
        server.start()
        assert server.endpoint.startswith("https://")
        bootstrap(server.as_admin(), ["pud-data"])
        name = f"store/files/md5/{EMPTY[:2]}/{EMPTY[2:]}"
        server.as_admin().client().put_object("pud-data", name, io.BytesIO(b"[]"), 2)
        for name, value in environment_of(server.as_reader()).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=r"is not trusted.*AWS_CA_BUNDLE"):
            materialise(URI, EMPTY, tmp_path / "refused")
        monkeypatch.setenv("AWS_CA_BUNDLE", server.ca_bundle)
        assert materialise(URI, EMPTY, tmp_path / "trusted").is_dir()
        monkeypatch.delenv("AWS_CA_BUNDLE")
        monkeypatch.setattr(pud.artifacts.storage, "MOUNTED_CA", Path(server.ca_bundle))
        assert materialise(URI, EMPTY, tmp_path / "mounted").is_dir()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("endpoint", "given", "region"),
    [
        ("http://127.0.0.1:9", "", "us-east-1"),
        ("http://127.0.0.1:9", "fr-par", "fr-par"),
        ("https://s3.eu-central-1.amazonaws.com", "", "eu-central-1"),
    ],
)
def test_the_region_is_the_given_one_else_that_of_the_address(endpoint: str, given: str, region: str) -> None:
    assert S3(endpoint, *READER, region=given).client()._get_region("pud-data") == region


def test_bootstrap_makes_versioned_buckets_of_which_what_nobody_needs_expires(store: ObjectStore) -> None:
    client = store.as_admin().client()
    for bucket in bucket_names({}):
        assert client.get_bucket_versioning(bucket).status == "Enabled"
        rules = {rule.rule_filter.prefix or "": rule for rule in client.get_bucket_lifecycle(bucket).rules}
        assert rules.keys() == ({"tmp/", "", "runs/"} if bucket == "pud-pipelines" else {"tmp/", ""})
        assert rules["tmp/"].expiration.days == 7
        assert rules[""].abort_incomplete_multipart_upload.days_after_initiation == 7
        assert rules[""].noncurrent_version_expiration.noncurrent_days == KEPT_DAYS
        assert "runs/" not in rules or rules["runs/"].expiration.days == KEPT_DAYS
    assert all("was there" in line for line in bootstrap(store.as_admin(), bucket_names({})))


def test_a_read_only_identity_cannot_bootstrap(store: ObjectStore) -> None:
    with pytest.raises(InputError, match="may not do that"):
        bootstrap(store.as_reader(), ["pud-new"])


def in_the_middle(count: Callable[[], int], total: int, busy: Callable[[], bool]) -> int:
    """Wait until some but not all are there."""
    while not (done := count()):
        assert busy()
        time.sleep(0.001)
    assert done < total
    return done


def test_a_store_killed_in_the_middle_of_a_push_or_a_fetch_loses_nothing_once_it_is_back(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, files = tmp_path / "project", 12
    (project / "data").mkdir(parents=True)
    for number in range(files):
        (project / "data" / f"{number}.bin").write_bytes(os.urandom(4 << 20))
    admin = store.as_admin()
    dvc("init", "--no-scm", "--quiet", cwd=project, s3=admin)
    dvc("remote", "add", "--default", "store", "s3://pud-data/killed", cwd=project, s3=admin)
    dvc("remote", "modify", "store", "endpointurl", store.endpoint, cwd=project, s3=admin)
    dvc("add", "--quiet", "data", cwd=project, s3=admin)
    for name, value in environment_of(admin).items():
        monkeypatch.setenv(name, value)

    def pushed_files() -> int:
        return sum(1 for _ in admin.client().list_objects("pud-data", "killed/", recursive=True))

    push = [Path(sys.executable).with_name("dvc"), "push", "--quiet", "--jobs", "1"]
    impatient = {**os.environ, "AWS_MAX_ATTEMPTS": "1", "DVC_NO_ANALYTICS": "1"}
    with subprocess.Popen(push, cwd=project, env=impatient, stderr=subprocess.DEVNULL) as first:
        try:
            in_the_middle(pushed_files, files, lambda: first.poll() is None)
            store.kill()
            assert first.wait(timeout=180) != 0
        finally:
            first.kill()
    store.start()
    assert 0 < pushed_files() < files
    dvc("push", "--quiet", cwd=project, s3=admin)
    assert pushed_files() == files + 1  # and their listing

    digest, cache = folder_digest(project / "data"), tmp_path / "cache"

    monkeypatch.setattr(pud.artifacts.storage, "THREADS", 1)
    with ThreadPoolExecutor(1) as pool:
        fetch = pool.submit(materialise, "dvc:s3://pud-data/killed", digest, cache)
        in_the_middle(lambda: len(state(cache / digest)), files, lambda: not fetch.done())
        store.kill()
        with pytest.raises(InputError, match="try again"):
            fetch.result(timeout=180)
    kept = state(cache / digest)
    assert 0 < len(kept) < files
    store.start()
    assert folder_digest(materialise("dvc:s3://pud-data/killed", digest, cache)) == digest
    assert kept.items() <= state(cache / digest).items()


def test_the_repr_of_an_identity_hides_its_keys() -> None:
    assert not any(text in repr(S3("http://host:1", *ADMIN)) for text in ADMIN)


def test_other_uris_are_refused_with_the_ones_that_work() -> None:
    with pytest.raises(InputError, match="dvc:s3://BUCKET/PREFIX"):
        data_folder("http://example/data", "")


def test_md5_is_that_of_dvc(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert md5_of(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"
