"""Write docs/results.md and its figures from the grid's cells: one ``results/*.json`` for each infected model.

python -m experiments.results

The page is ``page.md``, in which every ``{name}`` is filled by the section of this name.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.plan import BEYOND, DEFAULT, WORKED, all_cells
from experiments.rows import MISSING, Grid, load
from experiments.sections import SECTIONS

PAGE = Path(__file__).with_name("page.md")
WORDS = {"default": DEFAULT, "beyond": BEYOND, "worked": f"{100 * WORKED:.0f}", "missing": MISSING}


def page(grid: Grid, folder: Path) -> str:
    """Return the page; its figures go into the folder. A section that it does not name comes at its end."""
    text, sections = PAGE.read_text("utf-8"), SECTIONS.entries()
    named = set(re.findall(r"{([^{}]+)}", text))
    text += "".join(f"\n## {name.capitalize()}\n\n{{{name}}}\n" for name in sections if name not in named)

    def filled(match: re.Match[str]) -> str:
        name = match[1]
        return WORDS[name] if name in WORDS else sections[name](grid, folder)

    paragraphs = [re.sub(r"{([^{}]+)}", filled, paragraph) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def write(results_folder: Path, out: Path, planned: Sequence[dict[str, Any]] = ()) -> None:
    """Write the page ``out`` and its figures, into the folder named like it: docs/results.md, docs/results/*.svg."""
    text = page(Grid(load(results_folder, planned)), out.with_suffix(""))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)


def main() -> None:
    """Write the page of what is measured so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the cells")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"), help="the page")
    arguments = parser.parse_args()
    write(arguments.results, arguments.out, [cell.empty() for cell in all_cells()])


if __name__ == "__main__":
    main()
