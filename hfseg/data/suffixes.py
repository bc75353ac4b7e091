"""Which files are images by their names: those that this Pillow reads, and those that people call images besides."""

from pathlib import Path

from PIL import Image

# Formats that Pillow knows by name only or hands to another program, and papers, films and archives.
NOT_PICTURES = {"BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PCD", "PDF", "WMF"}
# Images of cameras, phones and the web that Pillow does not read, or not in every version.
UNREADABLE_PICTURES = {
    ".arw", ".avif", ".avifs", ".bpg", ".cr2", ".cr3", ".dng", ".emf", ".eps", ".exr", ".fit", ".fits", ".hdr",
    ".heic", ".heif", ".hif", ".insp", ".jls", ".jp2", ".jpf", ".jpx", ".jxl", ".jxr", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".svg", ".svgz", ".wdp", ".wmf", ".x3f",
}  # fmt: skip


def _readable_formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in NOT_PICTURES]


FORMATS = _readable_formats()  # names as Pillow's, in the order in which it tries them
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def is_image(path: Path) -> bool:
    """Whether Pillow reads it, as far as its name tells."""
    return path.suffix.lower() in SUFFIXES


def is_unreadable_image(path: Path) -> bool:
    """Whether it is an image by its name, of a format that this Pillow does not read."""
    return path.suffix.lower() in UNREADABLE_PICTURES and not is_image(path)
