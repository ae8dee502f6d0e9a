"""Progress with an estimate: at most one line every five seconds, fit for logs."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_last_sign = time.monotonic()

MARK = "pud: "
SECONDS = 5.0
FIRST = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started


class _Lines:
    """A text stream that turns tqdm's carriage returns into lines."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def sign() -> None:
    """Note that work goes on: for long work without a line of its own."""
    global _last_sign
    _last_sign = time.monotonic()


def seconds_since_sign() -> float:
    """Return how long nothing was said, no tracked item begun and no sign given."""
    return time.monotonic() - _last_sign


def say(text: str) -> None:
    """Print one line for the person who watches; of several processes the first one does."""
    sign()
    if FIRST:
        print(f"{MARK}{text}", file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while a line every five seconds says how far ``label`` is and how long it still takes.

    ``total``: how many there are, of items without a length.
    """
    lines = tqdm(
        items,
        total=total,
        file=_Lines(),
        mininterval=SECONDS,
        maxinterval=SECONDS,
        delay=SECONDS,
        leave=False,
        disable=not FIRST,
        bar_format=MARK + label + " {percentage:3.0f} %, {remaining} left",
    )
    for item in lines:
        sign()
        yield item
