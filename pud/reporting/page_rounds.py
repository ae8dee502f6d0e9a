"""The rounds on the page: how good the model is after each, whom each look at the data accuses, and the truth."""

from typing import Any

from pud.detectors.contract import POISONED, UNSURE, Detection
from pud.reporting.page_charts import bars, lines
from pud.reporting.page_findings import GIVEN_ACCURACY, Findings
from pud.reporting.page_words import REHEARSAL, chance, listed, percent, short
from pud.reporting.report import INFECTED, PURIFIED, stages_of

STAGES = {INFECTED: "given", PURIFIED: "repaired"}
CLEAN_ACCURACY, ROBUST = "clean_accuracy", "robust_accuracy"
KNOWN = {  # without the truth
    GIVEN_ACCURACY: "training pictures as labelled",
    CLEAN_ACCURACY: "test pictures as labelled",
    ROBUST: "under attack as labelled",
}
EFFECT = {"attack_success_rate": "the attack succeeds", "recovery_accuracy": "triggered, answered rightly"}
RATES = {"true_positive_rate": "poisoned pictures accused", "false_positive_rate": "clean pictures accused"}
DRIFT = {"share_to_target": "under attack, go to the target"}
TRUE = {key: KNOWN[key] for key in (CLEAN_ACCURACY, ROBUST)} | EFFECT | RATES | DRIFT

Stages = list[tuple[str, dict[str, Any]]]


def stages(findings: Findings) -> Stages:
    """Return (name, row) of each stage of the report, by names for people; none without a report."""
    return [(STAGES.get(name, name), row) for name, row in stages_of(findings.report or {})]


def measure(row: dict[str, Any], key: str) -> float | None:
    """Return a figure of a stage, None where it was not measured; robust accuracy is that under the first attack."""
    value = row.get(key)
    if key == ROBUST:
        value = value[0]["value"] if value else None
    return None if value is None else float(value)


def attack_words(rows: Stages) -> str:
    """Return by what the pictures under attack were attacked, in a sentence."""
    told = {
        f"{one['attack']}{'-' + str(one['steps']) if one['attack'] == 'PGD' else ''}, which changes no pixel by more "
        f"than {255 * one['epsilon']:.3g} of 255"
        for _, row in rows
        for one in row.get(ROBUST, [])[:1]
    }
    return f"Under attack means: {' or '.join(sorted(told))}." if told else ""


def rounds(findings: Findings) -> dict[str, Any] | None:
    """Return the rounds as charts and tables; None where there was one look and no repair."""
    rows, seen = stages(findings), findings.detections
    if len(rows) < 2 and len(seen) < 2:
        return None
    names, looks = [name for name, _ in rows], _looks(len(seen))
    known = _series([row for _, row in rows], KNOWN)
    charts = [lines("The model, by round", names, known)] if known else []
    if effect := _series([row for _, row in rows], EFFECT):
        charts.append(lines("The attack, by round (by the truth)", names, effect))
    if len(seen) > 1:
        charts.append(bars("Accused pictures, by look", looks, [_count(one, POISONED) for one in seen]))
        charts.append(lines("Confidence, by look", looks, {"confidence": [one.confidence for one in seen]}))
    judged = [row["detection"] for _, row in rows if row.get("detection")]
    if rates := _series(judged, RATES):
        charts.append(lines("The accusations, by look (by the truth)", _looks(len(judged)), rates))
    return {
        "charts": charts,
        "measures": list(known),
        "stages": [
            (name, *(percent(values[index]) for values in known.values())) for index, name in enumerate(names) if known
        ],
        "attack": attack_words(rows),
        "looks": [_look(findings, name, one) for name, one in zip(looks, seen, strict=True)],
    }


def _looks(n: int) -> list[str]:
    return [f"look {index + 1}" for index in range(n)]


def _series(rows: list[dict[str, Any]], named: dict[str, str]) -> dict[str, list[float | None]]:
    """Return the figures of the rows by their names; what was measured nowhere is left out."""
    series = {name: [measure(row, key) for row in rows] for key, name in named.items()}
    return {name: values for name, values in series.items() if any(value is not None for value in values)}


def _count(one: Detection, verdict: str) -> int:
    return int((one.verdict == verdict).sum())


def _look(findings: Findings, name: str, one: Detection) -> tuple[str, ...]:
    targets = listed([findings.class_name(label) for label in one.target_labels]) or one.conclusion
    counts = (f"{_count(one, verdict):,}" for verdict in (POISONED, UNSURE))
    return name, *counts, targets, chance(one.confidence)


def truth(findings: Findings) -> dict[str, Any] | None:
    """Return the rows that need the truth; None where nobody knows it."""
    rows = [(name, row) for name, row in stages(findings) if "attack_success_rate" in row]
    if findings.kind != REHEARSAL or not rows:
        return None
    attack = (findings.report or {}).get("attack", {})
    planted = f"The attack {short(attack['name'])} was planted on purpose" if attack.get("name") else ""
    share = f", in {percent(attack['poison_rate'])} of the training pictures" if "poison_rate" in attack else ""
    whole = [{**(row.get("drift") or {}), **(row.get("detection") or {}), **row} for _, row in rows]
    figures = _series(whole, TRUE)
    return {
        "planted": f"{planted}{share}." if planted else "",
        "header": ["Model", *figures],
        "rows": [
            (name, *(percent(values[index]) for values in figures.values())) for index, (name, _) in enumerate(rows)
        ],
    }
