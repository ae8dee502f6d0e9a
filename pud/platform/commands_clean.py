"""The command that makes a data set without its poison."""

from pathlib import Path

import click

from pud.base.errors import InputError
from pud.platform.options import finish, folder, metrics_option


@click.command("clean")
@folder("--dataset", "Data set that was judged.")
@folder("--detection", "Detection of its poisoned images.")
@folder("--out", "Cleaned data set to write, with changes.csv: who was removed or relabelled, and why.")
@folder("--pictures", "Image folder that the data set was imported from.", required=False)
@folder("--pictures-out", "Image folder to write, of its files that are left.", required=False)
@metrics_option
def clean_command(
    dataset: Path, detection: Path, out: Path, pictures: Path | None, pictures_out: Path | None, metrics: Path | None
) -> None:
    """Write a data set without the images that a detection accuses."""
    from pud.exchange.cleaned import write_cleaned, write_pictures_back

    if (pictures is None) != (pictures_out is None):
        raise InputError(
            "--pictures and --pictures-out go together: name the image folder to read and the one to write"
        )
    counts = write_cleaned(dataset, detection, out)
    if pictures and pictures_out:
        counts |= write_pictures_back(out, pictures, pictures_out)
    finish(counts, metrics)
