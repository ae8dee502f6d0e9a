"""How long the steps took that made a folder: ``timing.json`` in it."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pud.base.errors import InputError
from pud.base.files import MAXIMUM_JSON_BYTES, finished_folder, within


@contextmanager
def timed_folder(
    path: Path, step: str, mark: str, *inputs: Path, before: dict[str, float] | None = None
) -> Iterator[Path]:
    """Yield a step's output folder, as ``finished_folder`` does; on success it holds the step's seconds."""
    started = time.monotonic()
    with finished_folder(path, mark, *inputs) as folder:
        yield folder
        seconds = {**(before or {}), step: round(time.monotonic() - started, 2)}
        (folder / "timing.json").write_text(json.dumps(seconds) + "\n")


def timing(folder: Path) -> dict[str, float]:
    """Return the seconds of the steps that made a folder, by step; empty for a folder from elsewhere."""
    path = Path(folder) / "timing.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(within(path, MAXIMUM_JSON_BYTES).read_text())
        if not all(map(math.isfinite, content.values())):
            raise ValueError("not finite")
        return {str(step): float(seconds) for step, seconds in content.items()}
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} names no seconds by step ({error}): remove it") from error
