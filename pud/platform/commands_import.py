"""The command that makes a data set of a stranger's pictures."""

from pathlib import Path

import click

from pud.exchange.importing import SHEET, ImportConfig, import_pictures, summary
from pud.exchange.pictures import FORMS
from pud.platform.options import FOLDER, seed_option, settings


@click.command("import")
@click.argument("source", type=FOLDER)
@click.option("--out", type=FOLDER, default=Path("data"), show_default=True, help="Folder to write.")
@click.option(
    "--form",
    type=click.Choice(FORMS.names()),
    default=None,
    help="How the pictures lie there  [default: found from the files].",
)
@seed_option
@settings(ImportConfig, flags=("unlabelled",))
def import_command(source: Path, out: Path, form: str | None, seed: int, config: ImportConfig) -> None:
    """Make a data set of a folder of pictures, a table, arrays, or a published set.

    A folder for each class, a table (.csv, .parquet) of path and label, arrays (.npy, .npz), CIFAR, MNIST, GTSRB,
    ImageNet and files of the Hugging Face hub are told by what lies in SOURCE. A summary says what was found and
    what was skipped. With --unlabelled any folder of pictures will do, for pud scan alone.
    """
    content = import_pictures(source, out, config, seed=seed, form=form or "")
    click.echo(f"{summary(content)}\nwritten: {out}, to look at: {out / SHEET}")
