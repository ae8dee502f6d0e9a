"""Forms in which other people keep labelled pictures, one file each: a module offers ``FORMS = {name: form}``.

Adding a form is adding its file: a function that knows the form by its files, and one from a source to ``Pictures``
(``idx.py`` is the shortest example).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pud.base.errors import InputError
from pud.base.registry import Registry

if TYPE_CHECKING:
    from pud.exchange.pictures.contract import Form

FORMS: "Registry[Form]" = Registry("pud.exchange.pictures", "FORMS", "form of pictures")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")


def form_of(source: Path, *, unlabelled: bool = False) -> str:
    """Return the name of the form that a source has, from the files that are in it.

    unlabelled: pictures without labels will do, which any folder may hold.

    Raises:
        InputError: it has none of them; the message says what to do.
    """
    if not source.exists():
        raise InputError(f"{source} is not there: give a folder of pictures, a table of path and label, or arrays")
    for name, form in sorted(FORMS.entries().items(), key=lambda entry: entry[1].general):
        if form.reads(source):
            return name
    if unlabelled and source.is_dir():
        return "folder"
    if source.suffix.lower() in ARCHIVES:
        raise InputError(f"{source} is an archive: unpack it and give the folder")
    raise InputError(
        f"{source} holds no labelled pictures in a known form: give a folder with a folder for each class, a table "
        f"(.csv, .parquet) with columns path and label, or arrays (.npz, .npy); forms are {', '.join(FORMS.names())}"
    )
