"""Backdoor attacks to rehearse with, one file each, found by looking: nothing outside knows one by name.

Adding an attack is adding its file: a frozen config of its strengths, a function from what the attacker knows to an
``Attack``, and a dict ``ATTACKS`` that names it (``badnets.py`` is the shortest example).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pud.base.config import from_mapping
from pud.base.registry import Registry

if TYPE_CHECKING:
    from pud.attacks.contract import AttackMethod

ATTACKS: "Registry[AttackMethod]" = Registry("pud.attacks", "ATTACKS", "attack")


def attack_config(name: str, settings: Mapping[str, Any]) -> Any:
    """Return the frozen config of the attack called ``name``; a setting that is not given keeps its default.

    Raises:
        InputError: there is no such attack, it has no such setting, or the value is of the wrong type or range.
    """
    return from_mapping(ATTACKS.find(name).config, settings)
