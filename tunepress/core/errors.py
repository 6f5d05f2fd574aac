"""Errors that the user can fix."""


class InputError(Exception):
    """An input is wrong. The message is one line that names the file, row or key and how to fix it."""


def one_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type if the message is empty."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__
