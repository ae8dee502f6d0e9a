"""Which training images are poisoned: our detector and others, one file each.

``DETECTORS`` finds them by looking; to add one, write a file here with a dict ``DETECTORS`` of ``Detector``
(contract.py). A detector has nothing but evidence to go by, and no torch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pud.base.config import from_mapping
from pud.base.registry import Registry

if TYPE_CHECKING:
    from pud.detectors.contract import Detector

DEFAULT = "pud"
DETECTORS: "Registry[Detector]" = Registry("pud.detectors", "DETECTORS", "detector")


def detector_settings(settings: Mapping[str, Any]) -> "tuple[Detector, Any]":
    """Return a detector (``detector``, ours unless said otherwise) and its frozen config made from the other settings.

    Raises:
        InputError: an unknown detector or setting, or a wrong value.
    """
    given = dict(settings)
    detector = DETECTORS.find(str(given.pop("detector", DEFAULT)))
    return detector, from_mapping(detector.config, given)
