"""Picture files written by hand, sound and hostile, for the tests of what reads them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from bench.files import printable
from bench.pictures.data import PictureError, Pictures

CPU = torch.device("cpu")
WAY_OUT = "repair, convert or remove|check the path|move or remove|give "
some = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def read(path: Path) -> np.ndarray:
    """The one picture of a file as (H, W, 3) in levels of 0 to 255."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, batch),) = Pictures([path]).to(CPU).examples()
    assert batch.dtype == torch.float32
    assert torch.equal((batch.clamp(0, 1) * 255).round() / 255, batch)
    return (batch[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)


def refused(path: Path, says: str = "") -> str:
    """The error of a file that is no usable picture."""
    with pytest.raises(PictureError, match=says) as caught:
        Pictures([path]).to(CPU)
    text = str(caught.value)
    assert printable(path) in text
    assert any(way in text for way in WAY_OUT.split("|"))
    return text


def coloured(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, pixels: Any, **options: Any) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


def chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png(
    width: int, height: int, rows: bytes = b"", *, bits: int = 8, kind: int = 2, extra: bytes = b""
) -> bytes:
    """A PNG file of these raw rows; what its head claims need not be what it holds."""
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows or bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def packed(values: np.ndarray, bits: int) -> bytes:
    """Unfiltered PNG rows of values, (H, W), of so many bits each."""
    each = (values[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(each.reshape(len(values), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def tiff(width: int, height: int, data: bytes = b"", bits: int = 8) -> bytes:
    """A grey TIFF file; without `data` one that only claims its size."""
    size, place = len(data) or 10, 8 if not data else 8 + 2 + 9 * 12 + 4
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: place, 277: 1}
    tags |= {278: height, 279: size}
    long = (256, 257, 273, 278, 279)
    body = b"".join(
        struct.pack("<HHII", tag, 4 if tag in long else 3, 1, v) for tag, v in tags.items()
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4) + data


def webp(width: int, height: int) -> bytes:
    """An animation of one tiny frame on a canvas that is said to be large."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "WEBP", lossless=True)
    size = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    frame = bytes(6) + 2 * (3).to_bytes(3, "little") + bytes(4) + file.getvalue()[12:]
    parts = {b"VP8X": b"\x02\0\0\0" + size, b"ANIM": bytes(6), b"ANMF": frame}
    body = b"WEBP" + b"".join(k + struct.pack("<I", len(v)) + v for k, v in parts.items())
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg(width: int, height: int) -> bytes:
    """A tiny JPEG file that claims another size."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def exif_entry(tag: int, kind: int, value: int) -> bytes:
    return struct.pack("<HHII", tag, kind, 1, value)
