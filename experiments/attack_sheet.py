"""How strong the attacks are, with pictures: writes docs/attacks.md and docs/attacks/*.png.

    python -m experiments.attack_sheet

From the 700 pictures of CIFAR-10 in tests/data, seed 0: every attack of the registry at its defaults, and the strengths
of papers where these are others.
"""

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pud.attacks import ATTACKS, attack_config
from pud.attacks.poisoning import PoisonConfig, poison
from pud.base.device import prepare_process
from pud.data.images import LabelledImages
from pud.data.readers import open_split
from pud.exchange.importing import ImportConfig, import_pictures

ROOT = Path(__file__).parents[1]
SAMPLE, TEMPLATE = ROOT / "tests/data/cifar10-sample", ROOT / "experiments/attack_sheet.md"
PAGE, PICTURES = ROOT / "docs/attacks.md", ROOT / "docs/attacks"
OF_PAPERS: dict[str, dict[str, float]] = {"blend": {"ratio": 0.1}, "sig": {"amplitude": 10 / 255}}
RATE, SEED = 0.1, 0
ROWS, SIDE, GAP, TEXT = 7, 96, 6, 190  # attacks a sheet, and pixels
HEADS = ("before", "planted", "difference", "before", "triggered", "difference")


class Strength(NamedTuple):
    """Of pictures (n, c, h, w) that are changed: the largest change of a value, in 255ths; means over pictures of the
    Euclidean length of the change (values in [0, 1]), of the PSNR in dB, and of the share of values that change."""

    largest: float
    length: float
    psnr: float
    share: float

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> "Strength":
        """Measure uint8 pictures (n, c, h, w)."""
        change = (after.astype(float) - before).reshape(len(before), -1) / 255
        psnr = -10 * np.log10(np.square(change).mean(1).clip(1e-12))
        length = np.linalg.norm(change, axis=1)
        return cls(255 * abs(change).max(), length.mean(), psnr.mean(), (change != 0).mean())

    def cells(self) -> str:
        return f"{self.largest:.0f} | {self.length:.2f} | {self.psnr:.1f} | {self.share:.1%}"


class Shown(NamedTuple):
    """An attack: what it is called and is, its strengths, and a planted and a triggered picture before and after, four
    of (c, h, w)."""

    name: str
    what: str
    planted: Strength
    triggered: Strength
    pictures: tuple[np.ndarray, ...]


def measured(name: str, settings: dict[str, Any], train: LabelledImages, test: LabelledImages) -> Shown:
    """Plant an attack in the sample and return how strong it is."""
    method, strength = ATTACKS.find(name), attack_config(name, settings)

    config = PoisonConfig(name, poison_rate=RATE, train_size=len(train.labels))
    images, labels, truth = poison(train, test, config, strength, generator=torch.Generator().manual_seed(SEED))
    mine, led = truth.poisoned & (labels == 0), truth.triggered_target_labels == 0  # of several backdoors the first
    before, after = train.images[mine], images[mine]
    shown, triggered = test.images[truth.triggered_source[led]], truth.triggered_images[led]
    options = ", ".join(f"{key} {value:.3g}" for key, value in settings.items())
    what = inspect.getdoc(inspect.getmodule(method.make)).partition("\n\n")[0].replace("\n", " ")
    pictures = (before[0], after[0], shown[0], triggered[0])
    label = f"{name}, {options}" if options else name
    return Shown(label, what, Strength.of(before, after), Strength.of(shown, triggered), pictures)


def draw(path: Path, rows: list[Shown]) -> None:
    """Write a sheet: a row for each attack."""
    from PIL import Image, ImageDraw

    step = SIDE + GAP
    sheet = Image.new("RGB", (TEXT + len(HEADS) * step, 24 + len(rows) * step), "white")
    pen = ImageDraw.Draw(sheet)
    for column, head in enumerate(HEADS):
        pen.text((TEXT + column * step, 6), head, "black")
    for row, one in enumerate(rows):
        top = 24 + row * step
        cells = []
        words = [one.name.replace(", ", "\n")]
        for kind, before, after in (("planted", *one.pictures[:2]), ("triggered", *one.pictures[2:])):
            change = after.astype(float) - before
            gain = 127 / abs(change).max()
            cells += [before, after, np.uint8(np.round(127.5 + gain * change))]
            words.append(f"{kind}: difference x {gain:.1f}")
        pen.multiline_text((GAP, top + SIDE // 2), "\n".join(words), "black", anchor="lm")
        for column, cell in enumerate(cells):
            picture = Image.fromarray(cell.transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (TEXT + column * step, top))
    sheet.save(path, optimize=True)


def every(train: LabelledImages, test: LabelledImages) -> Iterator[Shown]:
    """Measure each attack at its defaults, and as in its paper where that is another strength."""
    for name in ATTACKS.names():
        yield measured(name, {}, train, test)
        if name in OF_PAPERS:
            yield measured(name, OF_PAPERS[name], train, test)


def table(rows: list[Shown]) -> str:
    """Return the strengths as a table in Markdown."""
    head = (
        "| attack | planted: largest change | L2 | PSNR | changed | triggered: largest change | L2 | PSNR | changed |"
    )
    lines = [f"| `{one.name}` | {one.planted.cells()} | {one.triggered.cells()} |" for one in rows]
    return "\n".join([head, "|---" + "|--:" * 8 + "|", *lines])


def main() -> None:
    """Measure, draw and write the page."""
    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        import_pictures(SAMPLE, Path(folder) / "data", ImportConfig(), seed=SEED)
        rows = list(every(*(open_split(Path(folder) / "data" / name) for name in ("train", "test"))))
    PICTURES.mkdir(exist_ok=True)
    sheets = []
    for number, start in enumerate(range(0, len(rows), ROWS), 1):
        few = rows[start : start + ROWS]
        draw(PICTURES / f"sheet-{number}.png", few)
        sheets.append(f"![{few[0].name} to {few[-1].name}](attacks/sheet-{number}.png)")
    papers = "\n".join(dict.fromkeys(f"- `{one.name.partition(',')[0]}`: {one.what}" for one in rows))
    PAGE.write_text(TEMPLATE.read_text().format(table=table(rows), sheets="\n\n".join(sheets), papers=papers))


if __name__ == "__main__":
    main()
