"""Build a step's frozen config from loose values, as they come from a pipeline, a command line or a file."""

import dataclasses
import math
import sys
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

from pud.base.errors import InputError

C = TypeVar("C")


class Range(NamedTuple):
    """What a number may be, both ends included, and how that is said."""

    low: float
    high: float
    words: str


MAXIMUM_WHOLE = 1 << 53  # kfp hands whole numbers over as doubles, of which each one is exact up to here
NOT_NEGATIVE = Range(0, sys.float_info.max, "of at least 0")  # what every number must be
Count = Annotated[int, Range(1, math.inf, "of at least 1")]
Positive = Annotated[float, Range(sys.float_info.min, sys.float_info.max, "above 0")]
Share = Annotated[float, Range(0, 1, "from 0 to 1")]
Part = Annotated[float, Range(sys.float_info.min, 1, "above 0 and at most 1")]


def from_mapping(cls: type[C], values: Mapping[str, Any]) -> C:
    """Return ``cls`` with the given fields replaced; what is not named keeps its default.

    Pipelines hand over integers as floats and tuples as lists: both are turned back.

    Raises:
        InputError: an unknown name, or a value of the wrong type or out of range.
    """
    types = typing.get_type_hints(cls, include_extras=True)
    if unknown := sorted(values.keys() - types.keys()):
        raise InputError(f"{cls.__name__} has no setting {', '.join(unknown)}: choose from {', '.join(types)}")
    return cls(**{name: _convert(f"{cls.__name__}.{name}", value, types[name]) for name, value in values.items()})


def words_of(cls: type, name: str) -> str:
    """Return what a config's annotation says of a setting, ``Annotated[Count, "Images at a time."]``; else nothing."""
    notes = typing.get_args(typing.get_type_hints(cls, include_extras=True)[name])
    return next((note for note in notes if isinstance(note, str)), "")


def _convert(name: str, value: Any, wanted: Any) -> Any:
    allowed = NOT_NEGATIVE
    if typing.get_origin(wanted) is Annotated:
        wanted, *notes = typing.get_args(wanted)
        allowed = next((note for note in notes if isinstance(note, Range)), NOT_NEGATIVE)
    if typing.get_origin(wanted) is tuple:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise InputError(f"{name} is {value!r}: give a list of numbers")
        if not value:
            raise InputError(f"{name} is empty: give a list of numbers")
        kinds = typing.get_args(wanted)
        if kinds[-1] is not ... and len(value) != len(kinds):
            raise InputError(f"{name} is {value!r}: give {len(kinds)} numbers")
        return tuple(_convert(name, item, kinds[0]) for item in value)
    if wanted is bool:
        words = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
        if str(value).lower() not in words:
            raise InputError(f"{name} is {value!r}: give true or false")
        return words[str(value).lower()]
    try:
        converted = wanted(value)
        whole = wanted is not int or converted == float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r}: give a value of type {wanted.__name__}") from error
    if wanted is int and converted > MAXIMUM_WHOLE:
        raise InputError(f"{name} is {value!r}: give a whole number of at most 2^53")
    if not whole:
        raise InputError(f"{name} is {value!r}: give a whole number")
    if wanted in (int, float) and not allowed.low <= converted <= allowed.high:
        raise InputError(f"{name} is {value!r}: give a number {allowed.words}")
    return converted


def as_parameters(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON values, the form in which it travels as a pipeline parameter."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(config).items()
    }
