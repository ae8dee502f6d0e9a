"""Earlier runs: what a folder of them holds, and what differs between two."""

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pud.artifacts.detection import MARK as DETECTION
from pud.artifacts.detection import load_detection
from pud.artifacts.model import FORMAT as MODEL_FORMAT
from pud.artifacts.timing import timing
from pud.artifacts.verdict import FILE as VERDICT
from pud.artifacts.verdict import load_verdict
from pud.base.errors import InputError, printable
from pud.base.files import read_json
from pud.detectors.contract import POISONED, Detection
from pud.reporting.page import DEFENCE, REHEARSAL, SCAN
from pud.reporting.report import HEADERS, SCALARS, aligned, load_report, rows_of, stages_of

REPORT, LOG, TASKS = "report.json", "kfp.log", "kfp"
FINISHED, UNFINISHED, UNREADABLE = "finished", "unfinished", "unreadable"
KINDS = {"pud": REHEARSAL, "scan": SCAN, "defend": DEFENCE}  # by the name of the pipeline
ROBUST = {"robust_accuracy": "robust"}
FOUND = ("true_positive_rate", "false_positive_rate", "auroc", "accused_images", "confidence")  # of a detection
PLAIN = ("auroc", "accused_images", "confidence", "seconds")  # of numbers; all others are shares
MISSING, SHOWN, LETTERS = "-", 10, 60
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)  # of what a stranger wrote


@dataclass(frozen=True)
class Run:
    """A run's folder. when: it wrote its last record, ISO 8601 in local time. kind: rehearsal, scan, defence or repair.

    metrics: of the last stage. seconds: None where nobody knows. state: finished, unfinished, or unreadable, of which
    ``reason`` says more.
    """

    name: str
    when: str
    kind: str = ""
    data: str = ""
    attack: str = ""
    verdict: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    state: str = UNREADABLE
    reason: str = ""


def earlier_runs(runs: Path) -> list[Run]:
    """Return the runs in a folder, the newest first; what is no run's folder is left out.

    Raises:
        InputError: there is no such folder.
    """
    if not runs.is_dir():
        raise InputError(f"{runs} is no folder: give the folder of the runs, --runs")
    found = [path for path in runs.iterdir() if not path.is_symlink() and _is_run(path)]
    return sorted(map(_read, found), key=lambda run: (run.when, run.name), reverse=True)


def _is_run(path: Path) -> bool:
    try:
        return any((path / name).exists() for name in (REPORT, VERDICT, LOG, TASKS))
    except OSError:
        return False


def _read(folder: Path) -> Run:
    records = [folder / name for name in (REPORT, VERDICT, LOG) if (folder / name).exists()] or [folder]
    changed = time.localtime(max(record.stat().st_mtime for record in records))
    unread = Run(folder.name, time.strftime("%Y-%m-%dT%H:%M:%S%z", changed))
    try:
        return replace(unread, **_contents(folder))
    except BROKEN as error:
        return replace(unread, reason=str(error))


def _contents(folder: Path) -> dict[str, Any]:
    """Return what a run's records say of it, the fields of ``Run``."""
    verdict, report = _verdict(folder), _report(folder)
    attack, found = (report or {}).get("attack", {}), _last_detection(report)
    pipelines = [path.name.partition("-")[0] for path in (folder / TASKS).glob("*-*")]
    kind = verdict.get("kind") or (REHEARSAL if attack else KINDS.get(next(iter(pipelines), ""), ""))
    code, targets = verdict.get("verdict_code"), verdict.get("target_labels")
    if not code and found:
        code, targets = found.get("verdict", ""), found["target_labels"]
    metrics = dict(rows_of(report)[-1][1]) if report else {}
    if "given_label_accuracy" in verdict:
        metrics.setdefault("given_label_accuracy", float(verdict["given_label_accuracy"]))
    if not all(map(math.isfinite, metrics.values())):
        raise InputError(f"{folder} holds a report with a figure that is none: evaluate again")
    seconds = sum(list(timing(path.parent).values())[-1] for path in _artifacts(folder, "*/timing.json"))
    return {
        "kind": str(kind),
        "data": str(report["dataset"]["name"] if report else verdict.get("data", "")),
        "attack": str(attack.get("name", "")),
        "verdict": " ".join([str(code or ""), *(["to", ", ".join(map(str, targets))] if targets else [])]),
        "metrics": {name: float(value) for name, value in metrics.items()},
        "seconds": float(spent) if (spent := (report or {}).get("seconds")) else round(seconds, 1) or None,
        "state": FINISHED if verdict or (folder / REPORT).is_file() else UNFINISHED,
    }


def _artifacts(folder: Path, name: str) -> list[Path]:
    """Return the files of this name that the tasks of a run left, the newest last."""
    return sorted((folder / TASKS).glob(f"*/*/{name}"), key=lambda path: path.stat().st_mtime)


def _verdict(folder: Path) -> dict[str, Any]:
    return load_verdict(folder) if (folder / VERDICT).is_file() else {}


def _report(folder: Path) -> dict[str, Any] | None:
    """Return the report of a run, or that of the last stage that an unfinished one measured."""
    if (folder / REPORT).is_file():
        return load_report(folder)
    partial = _artifacts(folder, f"report/{REPORT}")
    return load_report(partial[-1].parent) if partial else None


def _last_detection(report: dict[str, Any] | None) -> dict[str, Any] | None:
    stages = [result["detection"] for _, result in stages_of(report or {}) if result.get("detection")]
    return stages[-1] if stages else None


def listed(runs: Iterable[Run]) -> str:
    """Return runs as a table for a terminal, shares in percent."""
    runs = list(runs)
    known = [key for key in (*SCALARS, *ROBUST) if any(key in run.metrics for run in runs)]
    lines = [("name", "when", "kind", "data", "attack", "verdict", *map(_header, known), "seconds", "state")]
    for run in runs:
        shares = (f"{100 * run.metrics[key]:.2f}" if key in run.metrics else MISSING for key in known)
        texts = (text or MISSING for text in (run.kind, run.data, run.attack, run.verdict))
        seconds = MISSING if run.seconds is None else f"{run.seconds:.0f}"
        state = f"{run.state}: {run.reason}" if run.reason else run.state
        lines.append((run.name, run.when[:16].replace("T", " "), *texts, *shares, seconds, state))
    return aligned([tuple(map(printable, line)) for line in lines])


def _header(key: str) -> str:
    return {**HEADERS, **ROBUST}[key]


# --------------------------------------------------------------------------------------------------------- two of them


def compare(one: Path, other: Path) -> dict[str, Any]:
    """Return what differs between two runs, by name: ``parameters`` [A, B]; ``metrics`` [A, B, B - A], of each stage;
    ``verdicts`` [A, B]; and which ``classes`` and ``images`` are accused by both, only_a or only_b.

    ``images`` is None where the runs have no detection, or not of the same images.

    Raises:
        InputError: a folder is no run's, or something in it cannot be read.
    """
    sides = [_Side.of(folder) for folder in (one, other)]
    parameters = _beside(*(side.parameters for side in sides))
    groups = [{name.partition(".")[0] for name in side.parameters} for side in sides]
    shared = groups[0] & groups[1]
    different = {n: pair for n, pair in parameters.items() if pair[0] != pair[1] and n.partition(".")[0] in shared}
    pairs = _beside(*(side.metrics for side in sides))
    metrics = {name: [a, b, None if None in (a, b) else b - a] for name, (a, b) in pairs.items()}
    same_images = sides[0].digests is not None and sides[0].digests == sides[1].digests
    judged = [set(np.flatnonzero(side.detection.verdict == POISONED).tolist()) for side in sides if side.detection]
    return {
        "parameters": different,
        "metrics": metrics,
        "verdicts": [side.verdict for side in sides],
        "classes": _both(*(side.targets for side in sides)),
        "images": _both(*judged) if same_images and len(judged) == 2 else None,
    }


@dataclass(frozen=True)
class _Side:
    """One of two runs. digests: of the training images and labels, where something says them."""

    parameters: dict[str, Any]
    metrics: dict[str, float]
    verdict: str
    targets: set[Any]
    detection: Detection | None
    digests: tuple[str, str] | None

    @classmethod
    def of(cls, folder: Path) -> "_Side":
        if not _is_run(folder):
            raise InputError(f"{folder} is no run's folder: pud runs lists those that are")
        try:
            _contents(folder)  # what the list calls unreadable is refused
            return cls._of(folder)
        except InputError:
            raise
        except BROKEN as error:
            raise InputError(f"{folder} holds no run that can be read ({error}): see pud runs") from error

    @classmethod
    def _of(cls, folder: Path) -> "_Side":
        verdict, report = _verdict(folder), _report(folder) or {}
        said = ("seed", "git_commit", "dataset", "attack", "kind", "data", "command", "version")
        parameters = {"run": {key: one[key] for one in (report, verdict) for key in said if key in one}}
        about, digests, detection = dict[str, Any](), verdict.get("digests", {}), None
        for _, result in stages_of(report):
            parameters["images"] = {_attack(one): one["n"] for one in result["robust_accuracy"]}
        if found := _artifacts(folder, f"detection/{DETECTION}"):
            detection, about = load_detection(found[-1].parent)
            parameters |= about["settings"]
        for name in ("model", "purified"):
            if found := _artifacts(folder, f"{name}/model.json"):
                card = read_json(found[-1], MODEL_FORMAT, training=dict, made_from=dict)
                parameters[{"model": "train", "purified": "purify"}[name]] = card["training"]
                digests = {key.replace("_", " "): value for key, value in card["made_from"].items()} | digests
        data = digests.get("training images"), digests.get("training labels")
        return cls(
            parameters=_flat(parameters),
            metrics=_metrics(report, verdict),
            verdict=str(verdict.get("verdict") or about.get("verdict") or ""),
            targets=set(about.get("target_labels", verdict.get("target_labels", []))),
            detection=detection,
            digests=None if None in data else (str(data[0]), str(data[1])),
        )


def _metrics(report: dict[str, Any], verdict: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of every stage by name, such as ``purified, clean_accuracy``."""
    numbers: dict[str, Any] = {key: verdict[key] for key in ("given_label_accuracy", "confidence") if key in verdict}
    for stage, result in stages_of(report):
        found = result.get("detection") or {}
        plain = {key: result.get(key) for key in SCALARS} | {key: found.get(key) for key in FOUND}
        plain |= {_attack(one): one["value"] for one in result["robust_accuracy"]}
        numbers |= {f"{stage}, {key}": value for key, value in {**plain, "seconds": result.get("seconds")}.items()}
    numbers["seconds"] = report.get("seconds")
    return {name: float(value) for name, value in numbers.items() if value is not None}


def _attack(record: dict[str, Any]) -> str:
    steps = f"-{record['steps']}" if record["attack"] == "PGD" else ""
    return f"{record['attack']}{steps} at {255 * record['epsilon']:g}/255"


def _flat(content: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Return a nested mapping as one, whose names are ways: ``purify.keep``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        nested = _flat(value, f"{start}{name}.") if isinstance(value, Mapping) else {f"{start}{name}": value}
        flat |= nested
    return flat


def _beside(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what both have by name; a name of one alone comes behind those of its group (``purified, ...``)."""
    names = list(dict.fromkeys([*one, *other]))
    groups = list(dict.fromkeys(re.split("[.,]", name)[0] for name in names))
    names.sort(key=lambda name: groups.index(re.split("[.,]", name)[0]))
    return {name: [one.get(name), other.get(name)] for name in names}


def _both(one: set[Any], other: set[Any]) -> dict[str, list[Any]]:
    return {"both": sorted(one & other), "only_a": sorted(one - other), "only_b": sorted(other - one)}


def side_by_side(difference: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Return what ``compare`` returns as tables for a terminal; names: of the two runs."""
    parameters = [(name, *map(_value, pair)) for name, pair in difference["parameters"].items()]
    metrics = [
        (name, _number(name, a), _number(name, b), _number(name, more, "+"))
        for name, (a, b, more) in difference["metrics"].items()
    ]
    accused = [(key, *map(_some, difference[key].values())) for key in ("classes", "images") if difference[key]]
    tables = [
        [("parameters", *names), *(parameters or [("none differs",)])],
        [("metrics", *names, "difference"), *metrics],
        [("verdicts", ""), *zip(names, (text or MISSING for text in difference["verdicts"]), strict=True)],
        [("accused", "by both", *(f"only by {name}" for name in names)), *accused],
    ]
    if difference["images"] is None:
        tables[-1].append(
            (
                "images",
                "not compared: not known to be the same in both",
            )
        )
    return "\n\n".join(aligned([tuple(map(printable, line)) for line in lines]) for lines in tables)


def _value(value: Any) -> str:
    text = MISSING if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 3]}..."


def _number(name: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return MISSING
    return f"{value:{sign}.4g}" if name.endswith(PLAIN) else f"{100 * value:{sign}.2f} %"


def _some(values: list[Any]) -> str:
    more = ", ..." if len(values) > SHOWN else ""
    return f"{len(values)}" + (f" ({', '.join(map(str, values[:SHOWN]))}{more})" if values else "")


def as_json(runs: Iterable[Run]) -> str:
    """Return runs for machines: a list of objects."""
    return json.dumps([asdict(run) for run in runs], indent=2)
