"""What goes wrong on the way to the Hub or back, as one error that says where things stand and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # of the client's own HTTP library, whichever that is: dead hosts and cut connections are of this type
)

from hfseg.errors import HubTransferError, UserError

# The uploads of large files end in RuntimeError, and LFS' refusals, a refused card among them, in ValueError.
TRANSFER_ERRORS = (HTTPError, OSError, RuntimeError, ValueError)
NEXT_STEPS = {
    401: "The token is not accepted: log in again with `hf auth login`.",
    403: "Use a token with write permission for this repository (`hf auth login`), or ask its owner.",
    404: "Check the name and the revision, and that the token may see them.",
    409: "Something else is changing the repository: run the same command again.",
    412: "Something else has changed the repository: run the same command again.",
    429: "The Hub asks for patience: run the same command again in some minutes.",
    507: "There is no room left there: free some of the account's storage, then run the same command again.",
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT)


@contextmanager
def explained(doing: str, reached: str) -> Iterator[None]:
    """Any failure of a transfer, as one error that says where things stand."""
    try:
        yield
    except UserError:
        raise
    except TRANSFER_ERRORS as error:
        raise HubTransferError(f"{doing} failed: {reason(error)} {reached} {next_step(error)}") from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes: the client's own message often hides what happened."""
    return [error, *(_chain(error.__cause__) if error.__cause__ is not None else [])]


def reason(error: BaseException) -> str:
    texts = [" ".join(str(each).split()) or type(each).__name__ for each in _chain(error)]
    return "; ".join(text[:300].rstrip(".") for text in dict.fromkeys(texts)) + "."


def next_step(error: BaseException) -> str:
    chain = _chain(error)
    if any(isinstance(each, OSError) and each.errno in NO_ROOM for each in chain):
        return "Make room on the disk, or set HF_HOME to a folder on another, then run the same command again."
    if any(isinstance(each, OSError) and each.errno in NOT_WRITABLE for each in chain):
        return "Set HF_HOME, or HF_HUB_CACHE, to a folder that can be written to, then run the same command again."
    codes = [each.response.status_code for each in chain if isinstance(each, HfHubHTTPError)]
    steps = [NEXT_STEPS[code] for code in codes if code in NEXT_STEPS]
    return steps[0] if steps else "Check the connection, then run the same command again."
