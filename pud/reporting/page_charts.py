"""The charts of the page: small, so that a phone shows them in full size, and told apart by mark and stroke too."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pud.reporting.page_pictures import data_uri
from pud.reporting.page_words import percent

SIZE = (4.2, 3.1)  # inches
STYLES = (("#0b4f8a", "o", "-"), ("#a33b00", "s", "--"), ("#3f3f3f", "^", ":"))
BAR = "#0b4f8a"


@dataclass(frozen=True)
class Chart:
    """A drawing as a data URI, its title, and its figures in words for those who do not see it."""

    source: str
    title: str
    alt: str


def lines(title: str, stages: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> Chart:
    """Draw shares by stage; a share that was not measured leaves a gap."""

    def draw(axes: Any) -> None:
        for (name, values), (colour, marker, stroke) in zip(series.items(), STYLES, strict=False):
            heights = [float("nan") if value is None else 100 * value for value in values]
            axes.plot(stages, heights, label=name, color=colour, marker=marker, linestyle=stroke)
        axes.set(ylabel="%", ylim=(-3, 103))
        axes.grid(axis="y", color="#d0d0d0")
        if len(series) > 1:
            axes.figure.legend(loc="outside lower left", frameon=False)

    told = [
        f"{name}: " + ", ".join(f"{stage} {percent(value)}" for stage, value in zip(stages, values, strict=True))
        for name, values in series.items()
    ]
    return Chart(_drawn(draw), title, f"{title}. {'; '.join(told)}.")


def bars(title: str, stages: Sequence[str], values: Sequence[int]) -> Chart:
    """Draw a number by stage, written on its bar."""

    def draw(axes: Any) -> None:
        drawn = axes.bar(stages, values, color=BAR, width=0.5, hatch="//", edgecolor="white")
        axes.bar_label(drawn, [f"{value:,}" for value in values], padding=2)
        axes.set(ylim=(0, max(*values, 1) * 1.15))

    told = ", ".join(f"{stage} {value:,}" for stage, value in zip(stages, values, strict=True))
    return Chart(_drawn(draw), title, f"{title}: {told}.")


def _drawn(draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: no window, nothing left behind

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rc("svg", hashsalt="pud", fonttype="path")  # the same bytes each time, the same letters anywhere
        figure, buffer = Figure(figsize=SIZE, layout="constrained"), io.BytesIO()
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())
