"""From the name of an architecture to a classifier.

A name is that of a built-in network (pud/models/architectures), ``torchvision:NAME`` or ``timm:NAME`` of a library that
may be installed, or ``package.module:factory`` of the user's own code.
"""

import importlib
import re
from collections.abc import Sequence

from pud.base.errors import InputError
from pud.base.registry import Registry
from pud.models.contract import Classifier, Factory
from pud.models.zoo import LIBRARIES, zoo_factory

ARCHITECTURES: Registry[Factory] = Registry("pud.models.architectures", "ARCHITECTURES", "architecture")
LIBRARY_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")  # nothing that timm would fetch or read: hf-hub:, paths
CODE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_code(architecture: str) -> bool:
    """Return whether a name is ``package.module:factory``, which to use means to import that module."""
    library = architecture.partition(":")[0]
    return library not in LIBRARIES and CODE_NAME.fullmatch(architecture) is not None


def check_architecture(name: str) -> None:
    """Raise InputError for the name of no architecture; nothing is imported for a library's or the user's own."""
    library, colon, model = name.partition(":")
    known = LIBRARY_NAME.fullmatch(model) if library in LIBRARIES else is_code(name)
    if (colon and not known) or (not colon and name not in ARCHITECTURES.names()):
        libraries = "".join(f", {library}:NAME" for library in LIBRARIES)
        raise InputError(
            f"unknown architecture {name!r}: choose one of {', '.join(ARCHITECTURES.names())}{libraries}, or name your "
            "own as package.module:factory"
        )


def find_factory(architecture: str, *, may_import: bool) -> Factory:
    """Return what makes networks of an architecture.

    Args:
        may_import: whether the user chose this name, so that the code it names may run; never true of a name that was
            read from a file.

    Raises:
        InputError: there is no such architecture, its library is missing, or its code may not be imported.
    """
    check_architecture(architecture)
    source, _, name = architecture.partition(":")
    if not name:
        return ARCHITECTURES.find(architecture)
    if source in LIBRARIES:
        return zoo_factory(source, name)
    if not may_import:
        raise InputError(
            f"architecture {architecture!r} is code, and a file may not choose what code runs here: if you know the "
            "code and trust it, give its name yourself as the architecture"
        )
    return _imported(source, name)


def make_model(
    architecture: str,
    input_shape: Sequence[int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    seed: int = 0,
    may_import: bool = False,
) -> Classifier:
    """Return a freshly initialised classifier, channels last, on the CPU; ``may_import`` as in ``find_factory``.

    Raises:
        InputError: there is no such architecture, or it takes no such images.
    """
    factory = find_factory(architecture, may_import=may_import)
    return Classifier(factory, input_shape, classes, mean, std, seed=seed, name=architecture)


def _imported(module: str, name: str) -> Factory:
    try:
        factory = getattr(importlib.import_module(module), name)
    except Exception as error:  # the user's code raises what it likes
        raise InputError(
            f"architecture {module}:{name} cannot be imported ({type(error).__name__}: {error}): name a module that "
            "Python finds (with PYTHONPATH=. one in this folder)"
        ) from error
    if not callable(factory):
        raise InputError(
            f"architecture {module}:{name} is no function but {type(factory).__name__}: name a function that takes "
            "input_shape and classes and returns a torch.nn.Module"
        )
    return factory
