"""The pictures of the page: thumbnails that lie in it, and the estimated trigger to look at."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pud.data.batches import Batches
from pud.data.images import pixels, to_uint8
from pud.defences.trigger import AffineTrigger, estimate_trigger

SIDE = 96  # pixels of a thumbnail at most, and those in which its longer side is shown
VALUES = 1 << 25  # of the pictures that a trigger is estimated from, each group
TRIED_ON = 32  # pictures that tell how much a trigger changes
FAINT, SMALL_PART, FEW = 0.1, 0.25, 100  # of full brightness, of a picture, pictures


@dataclass(frozen=True)
class Picture:
    """A thumbnail: its data URI, its size on the page, what it is for those who do not see it, and a caption."""

    source: str
    width: int
    height: int
    alt: str
    caption: tuple[str, ...] = ()


@dataclass(frozen=True)
class TriggerView:
    """kept, added: what of a picture is left and what is put on it. pairs: clean pictures, before and after."""

    kept: Picture
    added: Picture
    pairs: tuple[tuple[Picture, Picture], ...]
    words: str


def picture(image: np.ndarray, alt: str, *caption: str) -> Picture:
    """Return the thumbnail of an image, uint8 (c, h, w): the first three channels, or the first one."""
    from PIL import Image

    colours = image[:3].transpose(1, 2, 0) if len(image) >= 3 else image[0]
    drawn = Image.fromarray(np.ascontiguousarray(colours))
    if max(drawn.size) > SIDE:
        drawn.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    height, width = image.shape[1:]
    wide, tall = (max(1, round(SIDE * side / max(height, width))) for side in (width, height))
    return Picture(data_uri("image/png", buffer.getvalue()), wide, tall, alt, caption)


def data_uri(kind: str, content: bytes) -> str:
    """Return bytes as a URI that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def spread_out(rows: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many of the rows, evenly from the first to the last."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def view_trigger(images: np.ndarray, accused: np.ndarray, trusted: np.ndarray, shown: Sequence[int]) -> TriggerView:
    """Estimate the trigger of accused images, rows of uint8 images (n, c, h, w), and put it on a few; shown: rows."""
    most = max(2, VALUES // int(np.prod(images.shape[1:])))
    accused, trusted = (np.sort(spread_out(rows, most)) for rows in (accused, trusted))
    trigger = estimate_trigger(Batches(images, torch.device("cpu")), accused, trusted)
    pairs = []
    for row in shown:
        before = images[row]
        after = to_uint8(trigger(pixels(before[None])))[0]
        pairs.append(
            (picture(before, "A clean picture"), picture(after, "The same picture with the estimated trigger"))
        )
    strongest = float(trigger.shift.abs().max())
    shift = trigger.shift / max(strongest, 1e-6)
    return TriggerView(
        picture(to_uint8(trigger.scale), "How much of the picture is kept", "kept", "white: all, black: nothing"),
        picture(
            to_uint8((shift + 1) / 2),
            "What is added to the picture",
            "added",
            f"grey: nothing, white: {100 * strongest:.0f} % brighter, black: as much darker",
        ),
        tuple(pairs),
        f"{where_it_is(trigger, pixels(images[spread_out(trusted, TRIED_ON)]))} It is estimated from "
        f"{len(accused):,} accused and {len(trusted):,} clean pictures"
        f"{', so few that much of it is chance' if len(accused) < FEW else ''}.",
    )


def where_it_is(trigger: AffineTrigger, clean: torch.Tensor) -> str:
    """Return in a sentence what a trigger does to clean images (m, c, h, w): the place of its strongest change."""
    change = (trigger(clean) - clean).abs().mean(0).amax(0)
    height, width = change.shape
    strongest = float(change.max())
    if strongest < FAINT:
        return (
            f"The estimate is faint, {100 * strongest:.0f} % of full brightness at most: the trigger is weak, moves, "
            "or differs from picture to picture."
        )
    rows, columns = (np.flatnonzero((change >= strongest / 2).any(axis).numpy()) for axis in (1, 0))
    tall, wide = (int(line[-1] - line[0]) + 1 for line in (rows, columns))
    if tall * wide > SMALL_PART * height * width:
        return f"It changes the picture by up to {100 * strongest:.0f} % of full brightness, in no one place."
    return (
        f"It changes the picture most, by up to {100 * strongest:.0f} % of full brightness, in rows {rows[0] + 1} to "
        f"{rows[-1] + 1} of {height} and columns {columns[0] + 1} to {columns[-1] + 1} of {width}."
    )
