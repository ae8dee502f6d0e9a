"""Pictures of the results page: the same rows give the same bytes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes


@contextmanager
def drawing(path: Path, columns: int, width: float, legend: dict[str, Any]) -> Iterator[list[Axes]]:
    """Yield axes side by side, give the last a legend and save them: the same drawing gives the same bytes."""
    with plt.rc_context({"svg.hashsalt": "pud"}):
        figure, axes = plt.subplots(1, columns, figsize=(width, 4), layout="constrained", squeeze=False)
        yield list(axes[0])
        axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1, 1), **legend)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def picture(draw: Callable[[pd.DataFrame, Path], None], rows: pd.DataFrame, path: Path, words: str) -> str:
    """Draw rows if there are any; return the Markdown that shows the figure."""
    path.unlink(missing_ok=True)
    if rows.empty:
        return ""
    draw(rows, path)
    return f"![{words}]({path.parent.name}/{path.name})\n\n{words}"
