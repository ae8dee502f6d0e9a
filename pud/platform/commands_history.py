"""The commands that look at earlier runs."""

import json
from pathlib import Path

import click

from pud.platform.options import FOLDER

runs_option = click.option(
    "--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder of the runs' records."
)
json_flag = click.option("--json", "machine", is_flag=True, help="For machines.")


@click.command("runs")
@runs_option
@json_flag
def runs_command(runs: Path, machine: bool) -> None:
    """List earlier runs, the newest first."""
    from pud.platform.history import as_json, earlier_runs, listed

    found = earlier_runs(runs)
    click.echo(as_json(found) if machine else listed(found) if found else f"no run is in {runs} yet")


@click.command("compare")
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@runs_option
@json_flag
def compare_command(a: Path, b: Path, runs: Path, machine: bool) -> None:
    """Show what differs between two runs: their folders, or their names."""
    from pud.platform.history import compare, side_by_side

    difference = compare(*(one if one.is_dir() else runs / one for one in (a, b)))
    click.echo(json.dumps(difference, indent=2) if machine else side_by_side(difference, (a.name, b.name)))
