"""Build a step's frozen config from loose values, as they come from a pipeline, a command line or a file."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pud.errors import InputError

C = TypeVar("C")


def from_mapping(cls: type[C], values: Mapping[str, Any]) -> C:
    """Return ``cls`` with the given fields replaced; what is not named keeps its default.

    Pipelines hand over integers as floats and tuples as lists: both are turned back.

    Raises:
        InputError: an unknown name, or a value of the wrong type.
    """
    types = typing.get_type_hints(cls)
    if unknown := sorted(values.keys() - types.keys()):
        raise InputError(f"{cls.__name__} has no setting {', '.join(unknown)}: choose from {', '.join(types)}")
    return cls(**{name: _convert(f"{cls.__name__}.{name}", value, types[name]) for name, value in values.items()})


def _convert(name: str, value: Any, wanted: Any) -> Any:
    if typing.get_origin(wanted) is tuple:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise InputError(f"{name} is {value!r}: give a list with a number for each round")
        if not value:
            raise InputError(f"{name} is empty: give a list with a number for each round")
        return tuple(_convert(name, item, typing.get_args(wanted)[0]) for item in value)
    if wanted is bool:
        words = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
        if str(value).lower() not in words:
            raise InputError(f"{name} is {value!r}: give true or false")
        return words[str(value).lower()]
    try:
        converted = wanted(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r}: give a value of type {wanted.__name__}") from error
    if wanted is int and converted != float(value):
        raise InputError(f"{name} is {value!r}: give a whole number")
    if wanted in (int, float) and not 0 <= converted < math.inf:
        raise InputError(f"{name} is {value!r}: give a number of at least 0")
    if name.endswith(".batch_size") and not converted:
        raise InputError(f"{name} is {value!r}: give a number of at least 1")
    return converted


def as_parameters(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON values, the form in which it travels as a pipeline parameter."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(config).items()
    }
