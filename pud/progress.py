"""Progress with an estimate: at most one line every five seconds, fit for logs."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

MARK = "pud: "
SECONDS = 5.0


class _Lines:
    """A text stream that turns tqdm's carriage returns into lines."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def say(text: str) -> None:
    """Print one line for the person who watches."""
    print(f"{MARK}{text}", file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str) -> Iterable[T]:
    """Yield the items while a line every five seconds says how far ``label`` is and how long it still takes."""
    return tqdm(
        items,
        file=_Lines(),
        mininterval=SECONDS,
        maxinterval=SECONDS,
        delay=SECONDS,
        leave=False,
        bar_format=MARK + label + " {percentage:3.0f} %, {remaining} left",
    )
