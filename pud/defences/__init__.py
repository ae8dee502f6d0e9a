"""From an infected model to a purified one: our defence and others, one file each.

``DEFENCES`` finds them by looking; to add one, write a file here with a dict ``DEFENCES`` of ``Defence`` (contract.py).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pud.base.registry import Registry

if TYPE_CHECKING:
    from pud.defences.contract import Defence

DEFAULT = "pud"
DEFENCES: "Registry[Defence]" = Registry("pud.defences", "DEFENCES", "defence")


def defence_settings(settings: Mapping[str, Any]) -> "tuple[Defence, Any]":
    """Return a defence (``defence``, ours unless said otherwise) and its frozen config made from the other settings.

    Raises:
        InputError: an unknown defence or setting, or a wrong value.
    """
    given = dict(settings)
    defence = DEFENCES.find(str(given.pop("defence", DEFAULT)))
    return defence, defence.configure(given)
