"""How far what the detector says may be believed: as often as it was right on cells that it had never seen.

Made of the ledger of first runs by ``python -m experiments.calibration``, for a backdoor that is as likely as none.
Where few cells were run it is near 0.5, by Laplace's rule of succession.
"""

from pathlib import Path

from pud.base.files import read_json

FORMAT, FILE = "pud-confidence/1", Path(__file__).with_name("confidence.json")


def of_first_runs(what: str) -> tuple[float, float]:
    """Return the confidence in ``none_found`` or in classes that are ``named``: before the first round, after one."""
    before, after = read_json(FILE, FORMAT, none_found=list, named=list)[what]
    return before, after
