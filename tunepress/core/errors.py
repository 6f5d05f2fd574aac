"""Errors that the user can mend."""


class InputError(Exception):
    """Something that came in is wrong: the message is one line that names the file, row or key and the cure."""


def one_line(error: BaseException) -> str:
    """The part of an error's text that says what is wrong."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
