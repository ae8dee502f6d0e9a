"""The chain of digests from an infected model and its data to a purified model: each model.json says what it was made
from, and ``verify`` recomputes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pud.artifacts.model import FORMAT as MODEL_FORMAT
from pud.artifacts.state import FILES as STATE
from pud.base.files import read_json, sha256
from pud.data.readers import open_split

WEIGHTS, VERDICTS = "model.safetensors", "detection.parquet"


@dataclass(frozen=True)
class Link:
    """One link of the chain. holds: None where what it names was not given."""

    name: str
    holds: bool | None
    detail: str

    def __str__(self) -> str:
        return f"{ {True: 'ok  ', False: 'FAIL', None: '-   '}[self.holds] } {self.name}: {self.detail}"


def made_from(model: Path, dataset: Path, detection: Path | None) -> dict[str, str]:
    """Return the digests of what a round starts from; ``infected_model`` is that of the chain's first model."""
    parent = read_json(model / "model.json", MODEL_FORMAT, made_from=dict)
    split = open_split(dataset / "train")
    own = sha256(model / WEIGHTS)
    digests = {"training_images": split.digest, "training_labels": split.labels_digest, "model": own}
    digests["infected_model"] = parent["made_from"].get("infected_model", own)
    return digests | ({"detection": sha256(detection / VERDICTS)} if detection else {})


def verify(
    model: Path,
    *,
    dataset: Path | None = None,
    parent: Path | None = None,
    infected: Path | None = None,
    detection: Path | None = None,
) -> list[Link]:
    """Return the links of a model's chain, recomputed from the folders that are given.

    Args:
        dataset: it was trained on this; parent: the model that its round began with; infected: the first one of the
            chain; detection: the verdicts that its round acted on.

    Raises:
        InputError: a folder that is not what it should be.
    """
    card = read_json(model / "model.json", MODEL_FORMAT, made_from=dict)
    says: dict[str, Any] = card["made_from"]
    links = [_link("model", card.get("sha256"), sha256(model / WEIGHTS))]
    split = open_split(dataset / "train") if dataset else None
    links.append(_link("training_images", says.get("training_images"), split.digest if split else None))
    links.append(_link("training_labels", says.get("training_labels"), split.labels_digest if split else None))
    for name, folder, file in (
        ("model", parent, WEIGHTS),
        ("infected_model", infected, WEIGHTS),
        ("detection", detection, VERDICTS),
    ):
        title = "model it began with" if name == "model" else name
        links.append(_link(title, says.get(name), sha256(folder / file) if folder else None))
    for file in STATE:
        if (model / file).is_file() or file in says:
            links.append(_link(file, says.get(file), sha256(model / file)))
    return links


def _link(name: str, said: Any, found: str | None) -> Link:
    if not isinstance(said, str | None):
        return Link(name, False, "model.json names no digest")
    if said is None:
        return Link(name, None if found is None else False, "not said in model.json")
    if found is None:
        return Link(name, None, f"{said[:12]}, not given to compare")
    return Link(name, said == found, said[:12] if said == found else f"{found[:12]}, but model.json says {said[:12]}")
