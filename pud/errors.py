"""The one exception that is meant for people."""


class InputError(ValueError):
    """Something the user gave is wrong: the message names the thing and the remedy."""
