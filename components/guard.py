"""What guards a task: empty inputs are refused, a task that stands still is ended, and the cluster is told why."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STALLED_SECONDS = 1800.0  # longer than any single piece of work between two signs of progress
LOOK_SECONDS = 10.0
TERMINATION_LOG, MAXIMUM_BYTES = Path("/dev/termination-log"), 4096  # Kubernetes': what it keeps of why a pod ended
DATA_VARIABLE = "PUD_DATA_GIB"  # the largest data set that the disks of this pipeline's pods have room for
FINAL = "InputError"  # by this word Argo can tell what another try would not mend: manifests/README.md


@contextmanager
def guarded(*inputs: Any) -> Iterator[None]:
    """Run a task's step: refuse artifacts that came empty, and tell Kubernetes the sentence of what was wrong.

    Args:
        inputs: the task's input artifacts; None for one that was not given.

    Raises:
        InputError: an input is empty, or what the step raises.
    """
    from pud.base.errors import InputError

    ended = threading.Event()
    threading.Thread(target=_watch, args=(ended,), daemon=True).start()
    try:
        for artifact in filter(None, inputs):
            refuse_empty(artifact.name, Path(artifact.path))
        yield
    except InputError as error:
        _tell(f"{FINAL}: {error}")
        raise
    finally:
        ended.set()


def refuse_empty(name: str, path: Path) -> None:
    """Raise InputError for an artifact without a file.

    Kubeflow's launcher downloads what an object store has lost as an empty folder and says nothing of it.
    """
    from pud.base.errors import InputError

    if not path.is_file() and not (path.is_dir() and any(path.iterdir())):
        raise InputError(
            f"the artifact {name} came empty: it has expired in the object store, or was removed there, while "
            "Kubeflow's cache still names it. Submit again with pud submit --no-cache, so that it is made anew"
        )


def _watch(ended: threading.Event) -> None:
    """End the process when the step has given no sign of progress for long: a hang must not hold a GPU."""
    import faulthandler

    from pud.base.progress import seconds_since_sign

    begun = time.monotonic()
    while not ended.wait(LOOK_SECONDS):
        if min(seconds_since_sign(), time.monotonic() - begun) > STALLED_SECONDS:
            _tell(f"{FINAL}: no progress for {STALLED_SECONDS:.0f} s, so the task was ended: its log shows where")
            faulthandler.dump_traceback()
            os._exit(1)


def _tell(sentence: str) -> None:
    if TERMINATION_LOG.is_file():  # in a pod only
        TERMINATION_LOG.write_bytes(sentence.encode()[:MAXIMUM_BYTES])
