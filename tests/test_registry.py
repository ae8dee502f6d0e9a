"""Entries are found by looking through a package, in folders that were added to it too."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pud.base.errors import InputError
from pud.base.registry import Registry

PACKAGE = "zoo_of_a_test"
ANIMALS: Registry[int] = Registry(PACKAGE, "LEGS", "animal")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package with two modules, of which one offers entries."""
    (home := tmp_path / PACKAGE).mkdir()
    (home / "__init__.py").write_text('"""Animals."""\n')
    (home / "mammals.py").write_text('LEGS = {"horse": 4, "bat": 2}\n')
    (home / "words.py").write_text("SOUND = 'neigh'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield home
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def test_entries_of_all_modules_are_found_in_alphabetical_order(folder: Path) -> None:
    assert ANIMALS.names() == ["bat", "horse"]
    assert ANIMALS.find("horse") == 4


def test_a_module_in_a_folder_that_was_added_is_found(folder: Path, tmp_path: Path) -> None:
    assert "ant" not in ANIMALS.names()
    (other := tmp_path / "elsewhere").mkdir()
    (other / "insects.py").write_text('LEGS = {"ant": 6}\n')
    importlib.import_module(PACKAGE).__path__.append(str(other))
    assert ANIMALS.find("ant") == 6


def test_an_unknown_name_is_refused_with_the_choice(folder: Path) -> None:
    with pytest.raises(InputError, match=r"unknown animal 'eel': choose one of bat, horse"):
        ANIMALS.find("eel")


def test_a_name_that_two_modules_offer_is_refused(folder: Path) -> None:
    (folder / "toys.py").write_text('LEGS = {"horse": 0}\n')
    with pytest.raises(InputError, match=rf"'horse' is in {PACKAGE}.mammals and in {PACKAGE}.toys: rename one"):
        ANIMALS.names()
