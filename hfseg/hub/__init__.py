"""Down from the Hub and up to it, saying what went wrong: one pinned snapshot, one commit that is read back."""

from hfseg.hub.access import check_access
from hfseg.hub.commit import PushResult, push_files
from hfseg.hub.public_files import Files, model_files, public_files
from hfseg.hub.pull import pull

__all__ = [
    "Files",
    "PushResult",
    "check_access",
    "model_files",
    "public_files",
    "pull",
    "push_files",
]
