"""The rounds on the page: how good the model is after each, whom each look at the data accuses, and the truth."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Look:
    """Whom a look at the data accuses: how many images, and of how many it is not sure; None where nobody kept it."""

    accused: int | None
    unsure: int | None
    targets: list[int]
    conclusion: str
    confidence: float

    @classmethod
    def of(cls, one: Detection) -> "Look":
        """Return what a detection tells."""
        accused, unsure = (int((one.verdict == verdict).sum()) for verdict in (POISONED, UNSURE))
        return cls(accused, unsure, one.target_labels, one.conclusion, one.confidence)


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


def looks(findings: Findings) -> list[Look]:
    """Return all looks at the data: of the detections, or where only the last one is there as the report tells them."""
    judged = [row["detection"] for _, row in stages(findings) if row.get("detection")]
    if len(findings.detections) >= len(judged):
        return [Look.of(one) for one in findings.detections]
    return [
        Look(_accused(one), None, one["target_labels"], one.get("verdict", ""), one["confidence"]) for one in judged
    ]


def _accused(found: dict[str, Any]) -> int | None:
    """Return how many images a report's detection accuses; with the truth it tells the shares of all kinds of them."""
    if "accused_images" in found:
        return int(found["accused_images"])
    kinds = [(found.get(kind), found.get(f"{kind}_n")) for kind in (*RATES, "cover_rate")]
    counts = [share * n for share, n in kinds if share is not None and n is not None]
    return round(sum(counts)) if counts else None


def rounds(findings: Findings) -> dict[str, Any] | None:
    """Return the rounds as charts and tables; None where there was one look and no repair."""
    rows, seen = stages(findings), looks(findings)
    if len(rows) < 2 and len(seen) < 2:
        return None
    names, numbers = [name for name, _ in rows], [f"look {index + 1}" for index in range(len(seen))]
    known = _series([row for _, row in rows], KNOWN)
    charts = [lines("The model, by round", names, known)] if known else []
    if effect := _series([row for _, row in rows], EFFECT):
        charts.append(lines("The attack, by round (truth)", names, effect))
    accused = [one.accused for one in seen if one.accused is not None]
    unsure = any(one.unsure is not None for one in seen)
    if len(seen) > 1:
        if len(accused) == len(seen):
            charts.append(bars("Accused pictures, by look", numbers, accused))
        charts.append(lines("Confidence, by look", numbers, {"confidence": [one.confidence for one in seen]}))
    rates = _series([row["detection"] for _, row in rows if row.get("detection")], RATES)
    if rates and all(len(values) == len(seen) for values in rates.values()):
        charts.append(lines("The accusations, by look (truth)", numbers, rates))
    return {
        "charts": charts,
        "measures": list(known),
        "stages": [
            (name, *(percent(values[index]) for values in known.values())) for index, name in enumerate(names) if known
        ],
        "attack": attack_words(rows),
        "header": ["Look", "accused", *(["not sure of"] if unsure else []), "accused classes", "confidence"],
        "looks": [_look_row(findings, name, one, unsure) for name, one in zip(numbers, seen, strict=True)],
    }


def _series(rows: list[dict[str, Any]], named: dict[str, str]) -> dict[str, list[float | None]]:
    """Return the figures of the rows by their names; what was measured nowhere is left out."""
    series = {name: [measure(row, key) for row in rows] for key, name in named.items()}
    return {name: values for name, values in series.items() if any(value is not None for value in values)}


def _look_row(findings: Findings, name: str, one: Look, unsure: bool) -> tuple[str, ...]:
    targets = listed([findings.class_name(label) for label in one.targets]) or one.conclusion
    wanted = (one.accused, one.unsure) if unsure else (one.accused,)
    counts = ("–" if count is None else f"{count:,}" for count in wanted)
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
