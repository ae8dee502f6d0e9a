"""A picture of pictures: a row for each class, to see at a glance what was imported."""

from pathlib import Path

import numpy as np

from pud.exchange.pictures.contract import shown

SIDE = 64  # pixels of a thumbnail
GAP = 4
TEXT_WIDTH = 200
TEXT_LETTERS = 28
QUALITY = 85


def contact_sheet(
    out: Path, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], *, per_class: int, most_classes: int
) -> None:
    """Write a JPEG with ``per_class`` pictures of each of the first ``most_classes`` classes, taken evenly.

    images: uint8 (n, c, h, w), of 1 or 3 channels, as a memory map where they are many; labels: int64 (n,).
    """
    from PIL import Image, ImageDraw

    rows = range(min(len(classes), most_classes))
    more = len(classes) - len(rows)
    step = SIDE + GAP
    size = (TEXT_WIDTH + per_class * step, len(rows) * step + (step // 2 if more else 0) + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for row in rows:
        members = np.flatnonzero(labels == row)
        top = GAP + row * step
        name = shown(classes[row])[1:-1].encode("ascii", "backslashreplace").decode()
        label = f"label {row}, " if len(classes) > 1 else ""
        name = name if len(name) <= TEXT_LETTERS else f"{name[: TEXT_LETTERS - 3]}..."
        pen.text((GAP, top + SIDE // 2), f"{name}\n{label}{len(members):,} pictures", "black", anchor="lm")
        for column, index in enumerate(members[np.unique(np.linspace(0, len(members) - 1, per_class).astype(int))]):
            picture = Image.fromarray(
                np.array(images[index, 0] if len(images[index]) == 1 else images[index].transpose(1, 2, 0))
            )
            scale = SIDE / max(picture.size)
            shape = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
            sheet.paste(
                picture.resize(shape, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR),
                (TEXT_WIDTH + column * step, top),
            )
    if more:
        pen.text((GAP, size[1] - step // 4), f"and {more:,} classes more", "black", anchor="lm")
    sheet.save(out, quality=QUALITY)
