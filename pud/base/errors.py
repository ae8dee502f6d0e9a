"""The one exception that is meant for people, and what no text may show."""

import re


class InputError(ValueError):
    """Something the user gave is wrong: the message names the thing and the remedy."""


def without_userinfo(text: object) -> str:
    """Return a text in which no URL has its name and password."""
    return re.sub(r"://(?:[^/\s]*|[^/\s:@]*:[^\s@]*)@", "://", str(text))


def printable(text: object) -> str:
    """Return a text as one line that shows all that is in it: no character of it moves or colours a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(text))
