"""Errors that the user can mend."""


class InputError(Exception):
    """Something that came in is wrong: the message is one line that names the file, row or key and the cure."""
