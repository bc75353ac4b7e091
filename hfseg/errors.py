"""The one exception that is addressed to the user, and how values are shown in its message."""

import re

MAX_SHOWN = 200  # characters of a value that a message repeats
# Terminals act on these; so does whoever can name a class or a file. Newline and tab are left.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters, and bytes of file names that are no text, as escapes such as `\\x1b`."""
    escaped = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return escaped.encode("utf-8", "backslashreplace").decode()


def shown(value: object) -> str:
    """A value as messages repeat it: its `repr`, or of an exception its kind and message, cut at 200 characters.

    Example:
        >>> shown("a" * 1000)[-4:], shown(KeyError("\x1b[31m"))
        ('a...', "KeyError: '\\\\x1b[31m'")
    """
    text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
    text = printable(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


class UserError(ValueError):
    """Something the user can fix: a config key, a data file, a label, a checkpoint.

    The message says what is wrong, where (file, key, index), the value got, and what to do. The command line prints
    it without a traceback and exits with code 2; every other exception is a bug of hfseg. Values in it go through
    `shown`; control characters are escaped.
    """

    def __init__(self, message: str) -> None:
        # From a DataLoader's worker, torch raises the same exception again with all of its traceback as the message
        if message.startswith(f"Caught {type(self).__name__} in "):
            message = message.rpartition(f"{type(self).__module__}.{type(self).__qualname__}: ")[2].rstrip()
        super().__init__(printable(message))


class WriteError(UserError):
    """A disk does not take what is to be written: says which file, why, and how that is mended."""


class HubTransferError(UserError):
    """A transfer to or from the Hub: says what was being done, what reached the Hub, and the next step."""
