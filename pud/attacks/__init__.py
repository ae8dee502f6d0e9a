"""Backdoor attacks: each one function in one file, from a victim to an ``Attack``. Nothing else knows their names.

Add an attack by adding its file and a line in ``ATTACKS``.
"""

from collections.abc import Callable

from pud.attacks.adaptive_blend import adaptive_blend
from pud.attacks.adaptive_consistency import adaptive_consistency
from pud.attacks.badnets import badnets
from pud.attacks.blend import blend
from pud.attacks.contract import Attack, Victim
from pud.attacks.input_aware import input_aware
from pud.attacks.label_consistent import label_consistent
from pud.attacks.sig import sig, sig_changed
from pud.attacks.source_specific import source_specific
from pud.attacks.wanet import wanet
from pud.base.errors import InputError

ATTACKS: dict[str, Callable[[Victim], Attack]] = {
    "badnets": badnets,
    "blend": blend,
    "sig": sig,
    "sig-changed": sig_changed,
    "wanet": wanet,
    "input-aware": input_aware,
    "label-consistent": label_consistent,
    "source-specific": source_specific,
    "adaptive-blend": adaptive_blend,
    "adaptive-consistency": adaptive_consistency,
}


def find_attack(name: str) -> Callable[[Victim], Attack]:
    """Return the function that makes the attack called ``name``."""
    if name not in ATTACKS:
        raise InputError(f"unknown trigger {name!r}: choose one of {', '.join(sorted(ATTACKS))}")
    return ATTACKS[name]
