"""Image files without what cameras and programs write beside the pixels: place, time, names, thumbnails, comments."""

import re
from io import BytesIO

from PIL import ExifTags, Image

from hfseg.data import as_rgb, has_more_frames, open_header, orientation_of, upright

START, END = b"\xff\xd8", b"\xff\xd9"
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # after the pixels of a scan
END_OF_IMAGE, SCAN = 0xD9, 0xDA
APPLICATION, COMMENT = range(0xE0, 0xF0), 0xFE
NEEDED = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}  # by which colours are decoded
EXIF = b"\xff\xe1"
# What Pillow tells of a PNG or WebP that is about its pixels
ABOUT_PIXELS = {
    "aspect", "background", "chromaticity", "dpi", "duration", "gamma", "icc_profile", "interlace", "loop", "srgb",
    "timestamp", "transparency",
}  # fmt: skip


def without_metadata(data: bytes) -> bytes:
    """The file with the same RGB pixels and nothing else: as it is, a JPEG cut out of it, or a PNG of its pixels."""
    image = open_header(BytesIO(data))
    if image.format in ("JPEG", "MPO") and (plain := _plain_jpeg(data, orientation_of(image))):
        return plain
    image.load()  # which may find texts at the end of a PNG
    is_plain = image.info.keys() <= ABOUT_PIXELS and not image.getexif() and not has_more_frames(image)
    if image.format in ("PNG", "WEBP") and is_plain:
        return data
    pixels = as_rgb(upright(open_header(BytesIO(data))), "The image")
    buffer = BytesIO()
    Image.frombytes("RGB", pixels.size, pixels.tobytes()).save(buffer, format="PNG")
    return buffer.getvalue()


def _plain_jpeg(data: bytes, orientation: int) -> bytes | None:
    """The JPEG's own segments, with the orientation alone as EXIF; None where they cannot be told apart."""
    parts, place = [START, _oriented(orientation)], len(START)
    while marker := NEXT_MARKER.match(data, place):
        kind = marker[0][1]
        if kind == END_OF_IMAGE:
            return b"".join([*parts, END])
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if kind == SCAN:
            after = NEXT_MARKER.search(data, end)
            end = after.start() if after else len(data)
        is_needed = kind in NEEDED and data.startswith(NEEDED[kind], place + 4)
        if is_needed or not (kind in APPLICATION or kind == COMMENT):
            parts.append(data[place:end])
        place = end
    return None


def _oriented(orientation: int) -> bytes:
    if orientation == 1:
        return b""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = exif.tobytes()
    return EXIF + (len(content) + 2).to_bytes(2) + content
