"""Step release: what may be shipped. The repaired model in the form in which it came, and the cleaned data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pud.artifacts.model import load_model, save_model
from pud.artifacts.timing import timed_folder
from pud.artifacts.verdict import load_verdict
from pud.base.device import prepare_process, resolve_device
from pud.data.readers import open_split
from pud.exchange.cleaned import write_cleaned
from pud.exchange.export import check_formats, export_as, export_weights, model_card
from pud.exchange.models import OURS, load_origin
from pud.reporting.gates import check_name
from pud.reporting.report import HEADERS, scalars_of

if TYPE_CHECKING:
    from pud.reporting.tracking import Tracking

CARD, AS_IT_CAME = "README.md", "as-it-came"


def release_step(
    model: Path,
    purified: Path,
    dataset: Path,
    detection: Path,
    findings: Path,
    *,
    formats: Sequence[str] = (),
    device: str = "auto",
    architecture: str | None = None,
    name: str = "",
    tracking: "Tracking | None" = None,
    repaired: Path,
    cleaned: Path,
) -> dict[str, float]:
    """Write the folders ``repaired`` and ``cleaned``.

    Args:
        model: as it was received, which says in which form it came.
        purified: the last round's.
        detection, findings: the last detection, and what was concluded from it.
        formats: more forms of the model: pt2, onnx.
        architecture: see ``load_model``.
        name: under which MLflow registers the repaired model, as its candidate.
        tracking: where MLflow is; None registers nothing, and so does an MLflow that is lost, which is said.
    """
    prepare_process()
    check_formats(formats)
    if tracking:
        check_name(name)
    origin, said = load_origin(model), load_verdict(findings)
    network, card = load_model(purified, resolve_device(device), architecture=architecture)
    counts = write_cleaned(dataset, detection, cleaned)
    with timed_folder(repaired, "release", "model.json", model, purified, dataset, detection, findings) as folder:
        save_model(folder, network, card)
        if origin and origin.form != OURS:  # in a folder of its own: it may be called model.safetensors too
            export_weights(network, origin, folder / AS_IT_CAME / origin.file)
        for form in formats:
            export_as(form, network, card, folder)
        (folder / CARD).write_text(model_card(card, origin, facts_of(said)), "utf-8")
    if tracking:
        from pud.reporting.registry import register  # three seconds of imports
        from pud.reporting.tracking import unless_lost

        with unless_lost(tracking, "the repaired model is not registered"):
            register(
                tracking,
                repaired,
                example=open_split(dataset / "train").images[:2],
                name=name,
                metrics=scalars_of(said["measured"]["purified"]) if "measured" in said else {},
                verdict=said,
                architecture=architecture,
            )
    return counts


def facts_of(verdict: dict[str, Any]) -> dict[str, Any]:
    """Return what a model card says of a run: what was found, and how the model was before and after."""
    facts = {"found in its training data": verdict["verdict"], "confidence": verdict["confidence"]}
    for stage, name in (("infected", "as it came"), ("purified", "repaired")):
        if measured := verdict.get("measured", {}).get(stage):
            scalars = {HEADERS[key]: value for key, value in scalars_of(measured).items()}
            attacks = {f"under {one['attack']} (n={one['n']})": one["value"] for one in measured["robust_accuracy"]}
            said = (f"{key} {100 * value:.2f} %" for key, value in {**scalars, **attacks}.items())
            facts[name] = ", ".join(said)
    return {**facts, "command": verdict["command"], "version of PUD": verdict["version"]}
