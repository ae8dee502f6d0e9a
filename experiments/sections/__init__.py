"""Sections of the results page, one file each: what fills a ``{name}`` of experiments/page.md."""

from collections.abc import Callable
from pathlib import Path

from experiments.rows import Grid
from pud.base.registry import Registry

Section = Callable[[Grid, Path], str]  # from all cells and the folder of the page's pictures to Markdown
SECTIONS: Registry[Section] = Registry("experiments.sections", "SECTIONS", "section of the results page")
