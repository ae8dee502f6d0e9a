"""Compare finished runs with the figures asked for, as a Markdown table.

python -m experiments.figures runs/figures-badnets runs/figures-blend
"""

import sys
from pathlib import Path
from typing import Any

from pud.reporting.report import load_report

# (what, how to read it from a report, the least or the most it may be)
ASKED = [
    ("infected: clean accuracy", lambda r: r["infected"]["clean_accuracy"], ">=", 0.895),
    ("infected: attack success", lambda r: r["infected"]["attack_success_rate"], ">=", 0.98),
    ("purified: attack success", lambda r: r["purified"]["attack_success_rate"], "<=", 0.03),
    ("purified: clean accuracy", lambda r: r["purified"]["clean_accuracy"], ">=", 0.87),
    ("purified: recovery accuracy", lambda r: r["purified"]["recovery_accuracy"], ">=", 0.86),
    ("purified: PGD-20 accuracy at 8/255", lambda r: r["purified"]["robust_accuracy"][0]["value"], ">=", 0.78),
    ("purified: AutoAttack accuracy at 8/255", lambda r: r["purified"]["robust_accuracy"][1]["value"], "", 0.0),
    ("detection: TPR", lambda r: r["purified"]["detection"]["true_positive_rate"], ">=", 0.97),
    ("detection: FPR", lambda r: r["purified"]["detection"]["false_positive_rate"], "<=", 0.02),
]
SECONDS = 480


def met(value: float, sign: str, bound: float) -> bool:
    """Say whether a value is on the right side of its bound."""
    return not sign or (value >= bound if sign == ">=" else value <= bound)


def rows(reports: list[dict[str, Any]]) -> list[list[str]]:
    """Return a row a figure: what, what was asked, what each report measured."""
    table = [["figure", "asked", *(report["attack"]["name"] for report in reports)]]
    for what, read, sign, bound in ASKED:
        values = [read(report) for report in reports]
        cells = [f"{100 * value:.2f} %{'' if met(value, sign, bound) else ' (missed)'}" for value in values]
        table.append([what, f"{sign} {100 * bound:.1f} %" if sign else "", *cells])
    pairs = [(r["purified"]["detection"]["target_labels"], r["attack"]["target_label"]) for r in reports]
    table.append(["detection: target named", "yes", *("yes" if a == [b] else f"{a} (missed)" for a, b in pairs)])
    spent = [report["seconds"] for report in reports]
    table.append(["whole run", f"<= {SECONDS} s", *(f"{s:.0f} s{'' if s <= SECONDS else ' (missed)'}" for s in spent)])
    return table


def main() -> None:
    """Print the table; exit 1 if a figure is missed."""
    reports = [load_report(Path(name)) for name in sys.argv[1:]]
    table = rows(reports)
    table.insert(1, ["---"] * len(table[0]))
    print("\n".join("| " + " | ".join(row) + " |" for row in table))
    sample = reports[0]
    print(
        f"\nseed {sample['seed']}, {sample['dataset']['train_images']} training images, "
        f"n: clean {sample['purified']['clean_accuracy_n']}, triggered {sample['purified']['attack_success_rate_n']}, "
        + ", ".join(f"{record['attack']} {record['n']}" for record in sample["purified"]["robust_accuracy"])
    )
    sys.exit(any("missed" in cell for row in table for cell in row))


if __name__ == "__main__":
    main()
