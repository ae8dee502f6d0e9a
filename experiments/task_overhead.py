"""What a KFP task costs beyond its step: the time of a task whose step does nothing, per component.

A task costs starting Python, importing what its component imports and reading and writing its artifacts. The
log of a finished run says when each task began and ended, and its step's timing says how long the step itself took.

    python -m experiments.task_overhead [runs/NAME ...]
"""

import json
import re
import sys
from datetime import datetime
from pathlib import Path

STARTED = re.compile(r"^(\d\d:\d\d:\d\d\.\d+) - INFO - Executing task .*?'([\w-]+)'")
ENDED = re.compile(r"^(\d\d:\d\d:\d\d\.\d+) - INFO - Task .*?'([\w-]+)'.*finished with status")


def overheads(run: Path) -> list[tuple[str, float]]:
    """Return (task, seconds beyond its step) of every task of a run that was executed, not taken from the cache."""
    text = re.sub(r"\x1b\[\d+m", "", (run / "kfp.log").read_text(errors="replace"))
    began: dict[str, datetime] = {}
    found = []
    for line in text.splitlines():
        if match := STARTED.match(line):
            began[match[2]] = datetime.strptime(match[1], "%H:%M:%S.%f")
        elif (match := ENDED.match(line)) and match[2] in began:
            whole = (datetime.strptime(match[1], "%H:%M:%S.%f") - began[match[2]]).total_seconds() % 86400
            steps = [json.loads(path.read_text()) for path in (run / "kfp").glob(f"*/{match[2]}/*/timing.json")]
            if steps:
                found.append((match[2], whole - max(list(step.values())[-1] for step in steps)))
    return found


def main() -> None:
    """Print the largest and the median overhead of the runs given, as one JSON line."""
    runs = [Path(name) for name in sys.argv[1:]] or [Path("runs/figures-badnets"), Path("runs/figures-blend")]
    rows = sorted((seconds, task) for run in runs for task, seconds in overheads(run))
    if not rows:
        sys.exit("no executed task in these runs (all were cached): remove runs/.cache and run them again")
    largest = {"task": rows[-1][1], "seconds": round(rows[-1][0], 1)}
    print(
        json.dumps(
            {"task_overhead": {"tasks": len(rows), "median": round(rows[len(rows) // 2][0], 1), "largest": largest}}
        )
    )


if __name__ == "__main__":
    main()
