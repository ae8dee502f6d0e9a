"""What is concluded of a model and its data, as it lies on disk: ``verdict.json``, on which a job can gate."""

from pathlib import Path
from typing import Any

from pud.base.files import read_json, write_json
from pud.data.images import TRAINING
from pud.detectors.contract import BACKDOOR, CANNOT_BE_JUDGED, NONE_FOUND, NOTHING_KNOWN

FORMAT, FILE = "pud-verdict/1", "verdict.json"
NOT_TRAINED_ON = (  # why nobody can say that there is no backdoor
    "these are not the pictures that the model was trained on, so a trigger need not be among them: give its training "
    "data, with their labels"
)
EXIT_CODES = {NONE_FOUND: 0, BACKDOOR: 3, CANNOT_BE_JUDGED: 4}  # 2: bad input


def save_verdict(folder: Path, said: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Write what a detection's ``detection.json`` says of a data set, and what else is known; returns the content.

    Of pictures that the model was not trained on (``about["pictures"]``, as in ``LabelledImages``) nobody being accused
    says nothing: that cannot be judged.
    """
    names = said.get("classes") or [str(label) for label in range(len(said["separation"]))]
    kept = ("verdict", "verdict_code", "target_labels", "unjudged", "confidence", "rounds_done")
    about = {"pictures": TRAINING, **about}
    if about["pictures"] != TRAINING and said["verdict_code"] != BACKDOOR:
        also = said["verdict"].removeprefix(f"{CANNOT_BE_JUDGED}: ") if said["verdict_code"] == CANNOT_BE_JUDGED else ""
        sentence = f"{CANNOT_BE_JUDGED}: {'; '.join(filter(None, [NOT_TRAINED_ON, also]))}"
        said = {**said, "verdict": sentence, "verdict_code": CANNOT_BE_JUDGED, "confidence": NOTHING_KNOWN}
    content = {
        "format": FORMAT,
        **{key: said[key] for key in kept},
        "exit_code": EXIT_CODES[said["verdict_code"]],
        "classes": names,
        "target_classes": [names[label] for label in said["target_labels"]],
        "shortcuts": said.get("shortcuts", []),  # of them those of which no image is accused
        "accused_images": said["counts"].get("poisoned", 0),
        "images": sum(said["counts"].values()),
        **({"hint": said["hint"]} if "hint" in said else {}),
        **about,
    }
    write_json(folder / FILE, content)
    return content


def load_verdict(folder: Path) -> dict[str, Any]:
    """Read the verdict in a folder.

    Raises:
        InputError: it is missing or not what ``save_verdict`` writes.
    """
    return read_json(folder / FILE, FORMAT, verdict=str, verdict_code=str, exit_code=int, target_labels=list)
