"""Entries found by looking: every module of a package may add some, and no list has to name it."""

import importlib
import pkgutil
from typing import Generic, TypeVar

from pud.base.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """What the modules of a package offer under one name.

    Args:
        package: the package's full name. Its ``__path__`` is looked through again at every call, so that a module in a
            folder that was added there is found too.
        attribute: the name of a ``dict[str, T]`` in each module that offers something; other modules are skipped.
        kind: what one entry is, in words for people.
    """

    def __init__(self, package: str, attribute: str, kind: str) -> None:
        self.package, self.attribute, self.kind = package, attribute, kind

    def entries(self) -> dict[str, T]:
        """Return all entries by name, in alphabetical order.

        Raises:
            InputError: two modules offer the same name.
        """
        found: dict[str, T] = {}
        homes: dict[str, str] = {}
        importlib.invalidate_caches()  # a module may be newer than what Python remembers of its folder
        for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__, f"{self.package}."):
            offered = getattr(importlib.import_module(module.name), self.attribute, {})
            for name in offered:
                if name in found:
                    raise InputError(
                        f"{self.kind} {name!r} is in {homes[name]} and in {module.name}: rename one of them"
                    )
                homes[name] = module.name
            found |= offered
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """Return the names of all entries, in alphabetical order."""
        return list(self.entries())

    def find(self, name: str) -> T:
        """Return the entry of this name.

        Raises:
            InputError: there is none; the message says which there are.
        """
        entries = self.entries()
        if name not in entries:
            raise InputError(f"unknown {self.kind} {name!r}: choose one of {', '.join(entries)}")
        return entries[name]
