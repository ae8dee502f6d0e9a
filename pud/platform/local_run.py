"""Run the compiled pipeline on this machine: kfp.local in a child process, its log in a file, progress in sight."""

import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pud import __version__
from pud.artifacts.verdict import FILE as VERDICT
from pud.base.errors import InputError, without_userinfo
from pud.base.files import partial_folder, write_json
from pud.base.progress import MARK
from pud.data.readers.npy import refuse_unlabelled
from pud.platform.compiled import BUNDLED, checked, parameters_of, read_parameters, read_pipeline, root_of, tasks_of
from pud.reporting.report import UNTRACKED, load_report, table

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

PAGE = "report.html"
RUN_NAME, LATEST = re.compile(r"\w[\w.-]*", re.ASCII), "latest"
PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
DATA_SET = (
    "a data set is a folder with train/ and test/, each of images.npy (uint8, n,c,h,w), labels.npy (int64, n) and "
    "dataset.json: pud import SOURCE --out data makes one of a folder of pictures, a table or arrays, pud fetch "
    "fashion-mnist --out data gets one"
)
LOOKED_AT = 10_000  # files of a folder that is none, at most
TAIL_SECONDS = 0.5
GRACE_SECONDS = 10


def run(
    *,
    pipeline: Path,
    runs: Path,
    name: str | None,
    data_uri: str,
    data_digest: str | None,
    attack: str,
    seed: int,
    device: str,
    tracking_uri: str,
    experiment: str,
    no_tracking: bool,
    parameters: tuple[str, ...],
) -> dict[str, Any]:
    """Run ``pipeline`` into ``runs/<name>`` and return the report.

    Raises:
        InputError: something is missing before the start, or a task failed; nothing finished is lost.
    """
    started = time.time()
    compiled = read_pipeline(pipeline)
    root = root_of(pipeline)
    given = read_parameters(parameters, None)
    data_uri, attack = given.pop("data_uri", data_uri), given.pop("attack", attack)
    name = run_name(name or time.strftime(f"{attack}-%Y%m%d-%H%M%S"))
    data_uri = local_data(data_uri)
    folder = (runs / name).resolve()
    tracking = None if no_tracking else tracking_of(tracking_uri, experiment, folder)
    arguments = {
        "data_uri": data_uri,
        "data_digest": dvc_digest(root, data_uri) if data_digest is None else data_digest,
        "attack": attack,
        "seed": seed,
        "device": device,
        "tracking": as_parameter(tracking),
        "git_commit": git_commit(root),
        **({"command": own_command()} if "command" in parameters_of(compiled) else {}),
        "image": f"pud:{source_digest(root)}",
        **given,
    }
    arguments = checked(arguments, compiled, pipeline)
    execute(pipeline, folder, arguments, tracking, cache=runs / ".cache")
    return _finish(folder, started, tracking)


def execute(
    pipeline: Path, folder: Path, arguments: dict[str, Any], tracking: "Tracking | None", *, cache: Path
) -> None:
    """Run a compiled pipeline with checked arguments; its artifacts lie in ``folder/kfp``, its log in ``folder``.

    Tasks that an earlier run finished with the same inputs and the same code are taken from the cache.

    Raises:
        InputError: a task failed; nothing finished is lost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder) as lock, partial_folder(folder / "tmp") as scratch:
        try:
            places = {"pipeline": pipeline, "folder": folder, "cache": cache}
            job = {**{key: str(path.resolve()) for key, path in places.items()}, "arguments": arguments}
            code = _watch(job, folder / "kfp.log", root_of(pipeline), tracking, scratch, lock)
        except KeyboardInterrupt:
            _close(tracking, "KILLED")
            raise
    if code:
        _close(tracking, "FAILED")
        raise InputError(f"{_reason(folder / 'kfp.log')} (the whole log: {folder / 'kfp.log'})")


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Yield the descriptor of a lock on a run's folder, which its child shares: two processes would spoil its files."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"a run in {folder} is under way: wait for its end, or write elsewhere") from error
        yield lock
    finally:
        os.close(lock)


def own_command() -> str:
    """Return the command line of this process, without a password."""
    return without_userinfo(shlex.join(["pud", *sys.argv[1:]]))


def run_name(name: str) -> str:
    """Return the name as that of a folder, and say so where it is another.

    Raises:
        InputError: it would lead elsewhere, or nothing is left of it.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    mended = re.sub(r"[^\w.-]+", "-", plain, flags=re.ASCII).strip("-")
    if "/" in name or not RUN_NAME.fullmatch(mended) or mended == LATEST:
        raise InputError(f"--name {name!r} names no run: give letters, digits, '-', '_' or '.', and not {LATEST!r}")
    if mended != name:
        click.echo(f"pud: the run is called {mended}, which can be the name of a folder", err=True)
    return mended


def local_data(data_uri: str, splits: Sequence[str] = ("train", "test")) -> str:
    """Return a data URI with an absolute path, FOLDER as file:FOLDER, if it names data on this machine.

    Raises:
        InputError: there is no data set; the sentence says what one is.
    """
    uri = _absolute(data_uri)
    scheme, _, path = uri.partition(":")
    if scheme not in ("file", "dvc"):
        raise InputError(f"data URI {data_uri!r} is not supported: give a folder, dvc:s3://BUCKET/PREFIX or dvc:CACHE")
    if scheme == "file":
        check_data(Path(path), splits)
    return uri


def check_data(folder: Path, splits: Sequence[str]) -> None:
    """Raise InputError, which says what a data set is, for a folder that holds none; its files are not read."""
    if all((folder / split / "dataset.json").is_file() for split in splits):
        return
    refuse_unlabelled(folder / "train")
    if folder.is_dir():
        files = list(islice((path for path in folder.rglob("*") if path.is_file()), LOOKED_AT))
        pictures = [path for path in files if path.suffix.lower() in PICTURES]
        missing = next(split for split in splits if not (folder / split / "dataset.json").is_file())
        kind = f"holds pictures ({pictures[0].name})" if pictures else f"has no {missing}/dataset.json"
    else:
        kind = "is a file" if folder.exists() else "is not there"
    raise InputError(f"{folder} {kind}: {DATA_SET}")


def dvc_digest(root: Path, data_uri: str) -> str:
    """Return the digest under which ``data.dvc`` versions the data; empty if they are not what it points to."""
    pointer = root / "data.dvc"
    if not pointer.is_file():
        return ""
    import yaml

    try:
        versioned = yaml.safe_load(pointer.read_text("utf-8"))["outs"][0]
        path, md5 = str(versioned["path"]), str(versioned["md5"])
    except (yaml.YAMLError, TypeError, LookupError, ValueError) as error:
        raise InputError(f"{pointer} names no data with their md5: restore it, or give --data-digest") from error
    return md5 if data_uri.startswith("dvc:") or _absolute(data_uri) == f"file:{root / path}" else ""


def source_digest(root: Path) -> str:
    """Return a digest of the code that tasks run; the local cache takes it for the image."""
    digest = hashlib.sha256()
    for file in sorted([*Path(__file__).parents[1].rglob("*.py"), *(root / "components").rglob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def git_commit(root: Path) -> str:
    """Return the commit of the checkout, outside one the version of the package; empty where git knows none."""
    if not (root / ".git").exists():  # a folder above may be another project's
        return f"pud-{__version__}"
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return found.stdout.strip()


def tracking_of(uri: str, experiment: str, folder: Path) -> "Tracking":
    from pud.reporting.tracking import Tracking, check

    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"  # tasks run in other folders
    tracking = Tracking(uri, experiment, f"{platform.node()}:{folder}", folder.name)
    check(tracking)
    return tracking


def as_parameter(tracking: "Tracking | None") -> dict[str, Any]:
    """Return the pipeline parameter, which logs and caches keep: the URI, that may hold a password, is not in it."""
    if tracking is None:
        return {"off": True}
    return {"experiment": tracking.experiment, "run_key": tracking.run_key, "name": tracking.name}


def _close(tracking: "Tracking | None", status: str) -> None:
    """A killed local runner does not run the exit task, so its work is done here."""
    if tracking:
        from pud.reporting.tracking import LOST, close

        try:
            close(tracking, status)
        except LOST as error:
            click.echo(f"pud: MLflow is lost, its run stays open: {without_userinfo(error)}", err=True)


def _absolute(data_uri: str) -> str:
    scheme, separator, path = data_uri.partition(":")
    if not separator or Path(data_uri).is_dir():
        return f"file:{Path(data_uri).resolve()}"
    local = scheme == "file" or (scheme == "dvc" and not path.startswith("s3://"))
    return f"{scheme}:{Path(path).resolve()}" if local else data_uri


@contextmanager
def _terminable(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, and leave no child behind whatever happens in the block."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _watch(job: dict[str, Any], log: Path, root: Path, tracking: "Tracking | None", scratch: Path, lock: int) -> int:
    """Run the job in a child process, show its progress lines and return its exit code."""
    environment = {
        **os.environ,
        **({"MLFLOW_TRACKING_URI": tracking.uri} if tracking else {}),
        "TMPDIR": str(scratch),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",  # the folder that one is in may have files called like modules
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "pud.platform.local_run", json.dumps(job)]
    with log.open("wb") as output, log.open(encoding="utf-8", errors="replace") as lines:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True, pass_fds=[lock]
        )
        with _terminable(process):
            running = True
            while running:
                running = process.poll() is None
                for line in lines:
                    if shown := _shown(line):
                        click.echo(shown)
                time.sleep(TAIL_SECONDS if running else 0)
        return process.returncode


def _shown(line: str) -> str | None:
    """Return what a person wants to see of a line of the log, if anything."""
    if "Executing task " in line:
        return "-- " + re.sub(r"\x1b\[\d+m|'", "", line.split("Executing task ")[1]).strip()
    return line[line.index(MARK) :].rstrip() if MARK in line else None


def _reason(log: Path) -> str:
    """Return the sentence for people in a failed run's log, else the last error of a task, else of the pipeline."""
    lines = log.read_text("utf-8", "replace").splitlines()
    mark = "InputError: "
    for_people = [line.split(mark, 1)[1] for line in lines if mark in line]
    errors = [line.strip() for line in lines if re.match(r"\s*[\w.]*(Error|Exception)\b(: |$)", line)]
    of_tasks = [line for line in errors if "finished with status" not in line]
    return (for_people or of_tasks or errors or ["the pipeline failed"])[-1]


def _finish(folder: Path, started: float, tracking: "Tracking | None") -> dict[str, Any]:
    """Gather what people look for into the run's folder, and print the table."""
    made = newest(folder, "report.json")
    if made is None:
        raise InputError(f"the pipeline has come to its end without a report: what it wrote is in {folder / 'kfp'}")
    source = made.parent
    report = {
        **load_report(source),
        "command": own_command(),
        "seconds": round(time.time() - started, 1),
    }
    write_json(folder / "report.json", report)
    latest = folder.with_name(f"{LATEST}.partial-{os.getpid()}")  # of this process alone: two runs may end at once
    latest.unlink(missing_ok=True)
    latest.symlink_to(folder.name)
    latest.replace(folder.with_name(LATEST))
    click.echo("\n" + table(report))
    page = f"   page: {folder / PAGE}" if PAGE in take_findings(folder) else ""
    click.echo(f"\nreport: {folder / 'report.json'}{page}   log: {folder / 'kfp.log'}")
    tell_where_recorded(folder, source, tracking)
    return report


def tell_where_recorded(folder: Path, report: Path, tracking: "Tracking | None") -> None:
    """Print where MLflow shows a run, or how to send what it lacks: beside the report is what it was lost for."""
    if tracking is None:
        return
    if (report / UNTRACKED).is_file():
        shutil.copy(report / UNTRACKED, folder / UNTRACKED)
        shown = without_userinfo(tracking.uri)
        again = f" --tracking-uri {shlex.quote(shown)}" + (" (with its password)" if shown != tracking.uri else "")
        sync = f"pud sync {shlex.quote(str(folder))}{again}"
        click.echo(f"MLflow was lost on the way, what it lacks is sent by: {sync}", err=True)
    else:
        click.echo(where_recorded(tracking))


def where_recorded(tracking: "Tracking") -> str:
    """Return a line that says how a person sees the runs of an experiment in MLflow."""
    from pud.reporting.tracking import LOST, page_of

    page = ""
    with suppress(*LOST):
        page = page_of(tracking)
    return f"MLflow: {how_to_open(tracking.uri, page)}"


def newest(folder: Path, name: str) -> Path | None:
    """Return the artifact of this name that a run's tasks wrote last."""
    return max((folder / "kfp").rglob(f"*/{name}"), key=lambda path: path.stat().st_mtime, default=None)


def take_findings(folder: Path) -> list[str]:
    """Copy the verdict and the page into a run's folder, and return what was copied."""
    findings, taken = newest(folder, "findings"), []
    for name in (VERDICT, PAGE):
        if findings and (findings / name).is_file():
            shutil.copyfile(findings / name, folder / name)
            taken.append(name)
    return taken


def how_to_open(uri: str, page: str = "") -> str:
    """Return how a person sees the runs that MLflow has at a URI; page: where below the server's address."""
    if not uri.startswith("sqlite:"):
        return f"open {without_userinfo(uri).rstrip('/')}/{page}"
    here = BUNDLED.resolve() == Path.cwd() and uri == f"sqlite:///{Path('mlflow.db').resolve()}"
    serve = "make mlflow" if here else f"mlflow server --backend-store-uri {shlex.quote(uri)}"
    return f"{serve}, then open http://127.0.0.1:5000/{page}"


def _child(job: dict[str, Any]) -> None:
    """Run the pipeline; this process owns the log."""
    from kfp import components, local

    folder = Path(job["folder"])
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "kfp"),
        raise_on_error=True,
        enable_caching=True,
        cache_root=job["cache"],
    )
    pipeline = components.load_component_from_text(without_retries(Path(job["pipeline"]).read_text("utf-8-sig")))
    pipeline(**job["arguments"])


def without_retries(text: str) -> str:
    """Return a compiled pipeline without its retry policies: they wait for a cluster to mend itself."""
    import yaml

    documents = list(yaml.safe_load_all(text))
    for _, task in tasks_of(documents[0]):
        task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents)


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
