"""Reading and writing files so that nothing finished is lost and nothing odd is believed."""

from hfseg.files.lock import LOCK, LockedError, locked
from hfseg.files.text import read_text
from hfseg.files.writing import (
    LEFTOVERS,
    complete_folder,
    follow_umask,
    new_file_mode,
    remove,
    remove_leftovers,
    write_json,
    write_text,
    writing,
    written_whole,
)
from hfseg.files.yaml_text import MAX_DEPTH, TAG, compose, construct, dump_yaml, parse_yaml

__all__ = [
    "LEFTOVERS",
    "LOCK",
    "MAX_DEPTH",
    "TAG",
    "LockedError",
    "complete_folder",
    "compose",
    "construct",
    "dump_yaml",
    "follow_umask",
    "locked",
    "new_file_mode",
    "parse_yaml",
    "read_text",
    "remove",
    "remove_leftovers",
    "write_json",
    "write_text",
    "writing",
    "written_whole",
]
