"""The one exception that is addressed to the user."""


class UserError(ValueError):
    """Something the user can fix: a config key, a data file, a label, a checkpoint.

    The message says what is wrong, where (file, key, index), the value got, and what to do. The command line prints
    it without a traceback and exits with code 2; every other exception is a bug of hfseg.
    """

    def __init__(self, message: str) -> None:
        # From a DataLoader's worker, torch raises the same exception again with all of its traceback as the message
        if message.startswith(f"Caught {type(self).__name__} in "):
            message = message.rpartition(f"{type(self).__module__}.{type(self).__qualname__}: ")[2].rstrip()
        super().__init__(message)


class HubTransferError(UserError):
    """A transfer to or from the Hub: says what was being done, what reached the Hub, and the next step."""
