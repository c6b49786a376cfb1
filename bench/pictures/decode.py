"""Picture files of any kind to 8-bit RGB: what their values mean is read off the file's own tags.

    read_picture(Path("a.tif"))        (3, H, W) uint8, or a text that says why not

Pillow decodes; what it leaves undone is done here: white that is zero, a transparent colour in the
file's own depth, 12 bits, damage in what is no pixel. Metadata is not used but for the orientation.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from bench.files import printable

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP")
# A photograph has about one pixel a byte, an empty white one 400. A file of more claims a size
# that it hardly has, and would take gigabytes to decode.
MOST_PER_BYTE, FREE = 2000, 2**22
BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
# What of a file's own words is used: TIFF's and EXIF's tags by number, PNG's chunks by name.
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339
PNG = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS"}
# 16-bit grey whose zero is white: Pillow knows it in Intel's byte order alone.
TiffImagePlugin.OPEN_INFO.setdefault(
    (TiffImagePlugin.MM, 0, (1,), 1, (16,), ()), ("I;16B", "I;16B")
)


def read_picture(file: Path | bytes, most: int = 0) -> np.ndarray | str:
    """One file, or what is in it, as (3, H, W) uint8, or the reason why not.

    most: pixels, where fewer are taken than Pillow does; looked at before anything is decoded.
    """
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    try:
        try:
            return _pixels(file, size, most)
        except BOMBS:
            raise
        except Exception:  # perhaps only of what is no pixel
            bare = _without_metadata(file)
            if bare is None:
                raise
            return _pixels(bare, size, most)
    except BOMBS:
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels: shrink it or cut it up"
    except Image.UnidentifiedImageError:
        return "it is no JPEG, PNG, TIFF or WebP picture" if size else "it is empty"
    except Exception as error:  # Pillow's readers raise nearly everything on damaged files
        return printable(error) or type(error).__name__


def _stream(file: Path | bytes) -> BinaryIO:
    return io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb")


def _pixels(file: Path | bytes, size: int, most: int) -> np.ndarray | str:
    """A file of `size` bytes as (3, H, W) uint8, or why it is not decoded; raises nearly
    everything."""
    with _stream(file) as source, Image.open(source, formats=FORMATS) as opened:
        pixels = opened.width * opened.height
        if most and pixels > most:
            return f"it has {pixels:,} pixels, and more than {most:,} are not taken: shrink it"
        if pixels > max(FREE, MOST_PER_BYTE * size):
            return f"it claims {pixels:,} pixels in {size:,} bytes: save it anew"
        tiles = getattr(opened, "tile", None) or [("", None, 0, "")]
        decoder, _, _, values = tiles[0]
        if decoder == "libtiff" and values[0] in NATIVE:
            # libtiff hands 32 bits over in this machine's order; Pillow knows so of 16 alone.
            _read_as(opened, (NATIVE[values[0]], *values[1:]))
        opened.load()
        try:
            turn = TURNS.get(opened.getexif().get(ORIENTATION, 1))
        except Exception:  # Pillow's readers raise nearly everything on damaged metadata
            turn = None
        picture: Image.Image = opened
        clear = opened.info.get("transparency")
        if opened.format == "PNG" and clear is not None:
            if values == "RGB;16B":
                picture = _clear_in_16_bits(opened, file, clear)
            else:
                opened.info["transparency"] = _clear_in_8_bits(clear, values)
        shown = _rgb(picture, opened)
        if turn is not None:
            shown = np.asarray(Image.fromarray(shown).transpose(turn))
        return np.ascontiguousarray(shown.transpose(2, 0, 1))


def _read_as(opened: Any, values: Any) -> None:
    """Let the first part of a picture that is not loaded yet be read as other `values`."""
    first = opened.tile[0]
    parts = (*first[:3], values)
    opened.tile = [type(first)(*parts) if hasattr(first, "_fields") else parts, *opened.tile[1:]]


def _clear_in_8_bits(clear: Any, stored: str) -> Any:
    """The transparent value of a PNG file in the levels that its decoded values have: the file
    gives it in its own depth (`stored`, as "L;4"), while grey of 2 and 4 bits is decoded to 8."""
    if stored in ("L;2", "L;4"):
        most = 2 ** int(stored[2]) - 1
        return clear * (255 // most) if clear <= most else clear
    if stored == "L":
        return clear & 255  # the lower bits count, as the standard says
    return tuple(value & 255 for value in clear) if stored == "RGB" else clear


def _clear_in_16_bits(opened: Image.Image, file: Path | bytes, clear: Any) -> Image.Image:
    """16-bit colour with its transparent colour: RGBA of the upper bytes. Pillow decodes these
    alone; the lower ones come by reading the values the other way round."""
    with _stream(file) as source, Image.open(source, formats=FORMATS) as again:
        _read_as(again, "RGB;16L")
        again.load()
        low = np.asarray(again)
    high, wanted = np.asarray(opened), np.asarray(clear)
    there = ((high == wanted >> 8) & (low == wanted & 255)).all(2)  # bytes: pictures are large
    shown = Image.fromarray(high)
    shown.putalpha(Image.fromarray(np.where(there, np.uint8(0), np.uint8(255))))
    return shown


def _without_metadata(picture: Path | bytes) -> bytes | None:
    """The chunks of a PNG file that say what its pixels are, and its orientation if that is
    whole; None for another file, or one with nothing to leave out."""
    kept, left = [PNG], False
    with _stream(picture) as file:
        if file.read(len(PNG)) != PNG:
            return None
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind in PNG_PIXELS or kind == b"eXIf":
                rest = file.read(length + 4)
                check = zlib.crc32(kind + rest[:-4]).to_bytes(4, "big")
                if kind in PNG_PIXELS or (rest[-4:] == check and rest[:2] in (b"II", b"MM")):
                    kept += [head, rest]
                    continue
            else:
                file.seek(length + 4, os.SEEK_CUR)
            left = True
    return b"".join([*kept, head]) if left else None


def _rgb(picture: Image.Image, opened: Image.Image) -> np.ndarray:
    """A loaded picture of any mode as (H, W, 3) uint8. Of the file it was `opened` from the tags
    count that say what its values mean."""
    tags: Any = getattr(opened, "tag_v2", {})
    bits = int((*tags.get(BITS_PER_SAMPLE, ()), 0)[0])
    if opened.format == "TIFF" and 2 in tags.get(SAMPLE_FORMAT, ()) and bits < 32:
        raise ValueError("its integers have a sign: save it with 8 or 16 bits without")
    if picture.mode.startswith("I"):  # 16 bits, in one of several orders; Pillow would clip them
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its integers are no 16-bit values: save it with 8 or 16 bits")
        if (clear := picture.info.get("transparency")) is not None:
            values[values == clear] = 65535
        if bits == 12:
            values = (values * 65535 + 2047) // 4095
        levels: np.ndarray = ((values + 128) // 257).astype(np.uint8)  # round(255 * value / 65535)
    elif picture.mode == "F":
        reals = np.asarray(picture)
        if not (reals.min() >= 0 and reals.max() <= 1):  # refuses NaN too
            raise ValueError("its real numbers leave [0, 1]: save it with 8 or 16 bits")
        levels = np.round(reals * 255).astype(np.uint8)
    else:
        if picture.mode == "La":  # premultiplied grey
            picture = picture.convert("LA")
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        return np.asarray(picture.convert("RGB"))
    if tags.get(PHOTOMETRIC) == 0:  # white; Pillow turns values of 8 bits and fewer alone
        levels = 255 - levels
    return np.repeat(levels[:, :, None], 3, axis=2)
