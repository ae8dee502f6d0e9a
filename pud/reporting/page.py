"""The page of a run, ``report.html``: one file that a person reads to decide, and a colleague gets by mail.

How it looks lies in ``templates/``, its words in ``page_words.py``; each of its parts has a file of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pud.base.files import partial_path
from pud.detectors.contract import BACKDOOR, UNSURE
from pud.reporting.page_changes import changes
from pud.reporting.page_classes import accused_classes
from pud.reporting.page_findings import GIVEN_ACCURACY, Findings
from pud.reporting.page_rounds import rounds, truth
from pud.reporting.page_words import (
    DEFENCE,
    HEADLINES,
    KINDS,
    NAME_LENGTH,
    NAMED,
    NOT_JUDGED,
    REHEARSAL,
    REPAIR,
    SCAN,
    SIGNS,
    TEXT_LENGTH,
    WHOSE,
    advice,
    amount,
    lead,
    limits,
    percent,
    short,
    sureness,
    visible,
)

__all__ = ["DEFENCE", "REHEARSAL", "REPAIR", "SCAN", "Findings", "write_page"]

ROWS = 500  # of parameters and of digests


def write_page(path: Path, findings: Findings) -> None:
    """Write the page: HTML that needs no network and no script, the same bytes for the same findings."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is the template's own
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parameters = list(_parameters(findings.parameters))
    digests = [(short(name), short(digest, TEXT_LENGTH)) for name, digest in findings.digests.items()]
    page = templates.get_template("page.html").render(
        title=short(findings.title, 2 * NAME_LENGTH),
        kind=KINDS[findings.kind],
        verdict=_verdict(findings),
        accused=accused_classes(findings),
        rounds=rounds(findings),
        changes=changes(findings),
        truth=truth(findings),
        parameters=parameters[:ROWS],
        digests=digests[:ROWS],
        without_row=max(0, len(parameters) - ROWS) + max(0, len(digests) - ROWS),
        command="\n".join(short(line, 10 * TEXT_LENGTH) for line in findings.command.splitlines()),
        origin=_origin(findings.report or {}),
    )
    partial = partial_path(path)
    partial.write_text(page, "utf-8")
    partial.replace(path)


def _verdict(findings: Findings) -> dict[str, Any]:
    """Return what stands first: the verdict, how sure it is, what it does not know, and what to do now."""
    last, code, verdict = findings.last, findings.code, findings.verdict
    n, accused = len(findings.labels), int(findings.accused.sum())
    unsure = int((last.verdict == UNSURE).sum()) if last else 0
    unknown = int((last.inferred_label[findings.accused] < 0).sum()) if last else 0
    classes = len(last.separation) if last else len(findings.classes)
    targets, unjudged = ([findings.class_name(label) for label in of] for of in (findings.targets, findings.unjudged))
    shortcuts = last.shortcuts if last and code == BACKDOOR else []
    by_shortcuts = bool(shortcuts) and set(findings.targets) <= set(shortcuts)
    facts = [("Pictures looked at", f"{n:,} in {amount(classes, 'class', 'classes')}")]
    if findings.pictures in WHOSE:
        facts.append(("What pictures", WHOSE[findings.pictures]))
    if last and code != NOT_JUDGED:
        facts += [("Accused", amount(accused, "picture")), ("Not sure of", amount(unsure, "picture"))]
    if verdict.get(GIVEN_ACCURACY) is not None:
        facts.append(("The given model answers as labelled", f"{percent(verdict[GIVEN_ACCURACY])} of them"))
    hint = short(verdict.get("hint", ""), TEXT_LENGTH)
    reasons = [short(reason, TEXT_LENGTH) for reason in findings.unjudged.values()]
    return {
        "style": code.replace(" ", "-") or "not-judged",
        "headline": HEADLINES[code],
        "sign": SIGNS[code],
        "lead": lead(code, targets, accused, n, len(unjudged), classes, findings.pictures, by_shortcuts=by_shortcuts),
        "sureness": sureness(code, verdict.get("confidence", last.confidence if last else None)),
        "facts": facts,
        "said": short(verdict.get("verdict", ""), TEXT_LENGTH) if code != NOT_JUDGED else "",
        "rehearsal": findings.kind == REHEARSAL,
        "unjudged": list(zip(unjudged, reasons, strict=True))[:NAMED],
        "without_row": max(0, len(unjudged) - NAMED),
        "limits": [
            *([f"{hint[0].upper()}{hint[1:]}."] if hint else []),
            *limits(
                code, findings.kind, unsure, unknown, findings.pictures, [findings.class_name(one) for one in shortcuts]
            ),
        ],
        "advice": advice(code, findings.kind, unjudged, findings.pictures, by_shortcuts=by_shortcuts),
    }


def _parameters(parameters: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, value) of nested parameters, as (detect.alpha, 4.0)."""
    for name, value in parameters.items():
        if isinstance(value, dict) and value:
            yield from _parameters(value, f"{above}{name}.")
        else:
            yield short(f"{above}{name}", 2 * NAME_LENGTH), short(value, TEXT_LENGTH)


def _origin(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return of which code and seed a run was, as far as its report says so."""
    known = {"Version of the code": report.get("git_commit"), "Seed": report.get("seed")}
    return [(name, short(value)) for name, value in known.items() if value not in (None, "")]
