"""A model goes back: its weights in the form they came in, or as .pt2 or ONNX, each checked to give the same logits."""

from pathlib import Path
from typing import Any

from pud.artifacts.model import ModelCard
from pud.exchange.models import Origin
from pud.models.contract import Classifier


def export_weights(model: Classifier, origin: Origin | None, path: Path) -> None:
    """Write a model's weights into the file ``path`` in the form that they came in; without origin as safetensors.

    Container, place, prefix, the order of outputs and of channels are the original's. What was found out here (mean and
    std) does not go along unless the file held them: who loads it normalises as before.

    Raises:
        InputError: the file, read again, does not give the model's logits.
    """
    raise NotImplementedError


def export_pt2(model: Classifier, card: ModelCard, path: Path) -> None:
    """Write a model for ``torch.export.load``: any number of images (n, c, h, w) in [0, 1] in, logits out.

    Raises:
        InputError: torch cannot export the network, or the exported one gives other logits.
    """
    raise NotImplementedError


def export_onnx(model: Classifier, card: ModelCard, path: Path) -> None:
    """Write a model as ONNX: any number of images (n, c, h, w) in [0, 1] in, logits out.

    Raises:
        InputError: the extra onnx is missing, torch cannot export the network, or the exported one gives other logits.
    """
    raise NotImplementedError


def model_card(card: ModelCard, origin: Origin | None, facts: dict[str, Any]) -> str:
    """Return a model card in Markdown, for people; ``facts``: {what: value} of what was done and measured."""
    raise NotImplementedError
