"""What a picture file's own tags say of its values is believed: white that is zero, transparent
colours in every depth, premultiplied colour, 12 bits; and damage in metadata does no harm.

The files are written by hand or by tifffile, the expected levels are computed from the values.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from bench.pictures.data import Pictures
from bench.pictures.decode import read_picture

RANDOM = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # as `bench.pictures.data` does


def read(path: Path) -> np.ndarray:
    """(H, W, 3) levels as integers."""
    levels = read_picture(path)
    assert isinstance(levels, np.ndarray), levels
    return levels.transpose(1, 2, 0).astype(int)


def refused(path: Path) -> str:
    reason = read_picture(path)
    assert isinstance(reason, str)
    return reason


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


# PNG: one transparent colour, in the file's own depth


def chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png(
    path: Path, size: tuple[int, int], depth: int, kind: int, rows: bytes, *extra: bytes
) -> Path:
    """A PNG file of unfiltered rows (each with its leading 0)."""
    head = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_every_depth_is_white(tmp_path: Path, depth: int) -> None:
    most = 2**depth - 1
    for key in {0, 1, most // 3, most}:
        values = RANDOM.integers(0, most + 1, (5, 16))
        values[0] = key
        values[1] = key ^ 1  # its neighbour is not clear
        bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
        packed = np.packbits(bits.reshape(5, -1).astype(np.uint8), axis=1)
        rows = b"".join(b"\0" + row.tobytes() for row in packed)
        clear = chunk(b"tRNS", struct.pack(">H", key))
        file = png(tmp_path / f"{key}.png", (5, 16), depth, 0, rows, clear)
        expected = np.where(values == key, 255, np.round(255 * values / most))
        assert np.array_equal(read(file), three(expected)), key


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_both_depths_is_white(tmp_path: Path, depth: int) -> None:
    values = RANDOM.integers(0, 2**depth, (4, 6, 3)).astype(">u2" if depth == 16 else np.uint8)
    key = values[1, 2].copy()
    values[3] = key
    values[2] = key ^ 1  # in 16 bits the upper bytes are those of the clear colour
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    clear = chunk(b"tRNS", key.astype(">u2").tobytes())
    file = png(tmp_path / "a.png", (4, 6), depth, 2, rows, clear)
    seen = values.astype(int) >> (depth - 8)
    expected = np.where((values == key).all(-1, keepdims=True), 255, seen)
    assert np.array_equal(read(file), expected)
    assert (expected[2] != 255).any()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_palette_lies_over_white(tmp_path: Path, depth: int) -> None:
    count = 2**depth
    palette = RANDOM.integers(0, 256, (count, 3), dtype=np.uint8)
    alpha = RANDOM.integers(0, 256, count - 1, dtype=np.uint8)  # those not named are opaque
    values = RANDOM.integers(0, count, (5, 16))
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    packed = np.packbits(bits.reshape(5, -1).astype(np.uint8), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    extra = chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", alpha.tobytes())
    file = png(tmp_path / "a.png", (5, 16), depth, 3, rows, *extra)
    share = np.append(alpha, 255)[values][..., None] / 255
    assert np.abs(read(file) - (palette[values] * share + 255 * (1 - share))).max() <= 1


# TIFF: what zero and the other channels mean


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_zero_is_black_or_white_as_the_file_says(
    tmp_path: Path, photometric: str, kind: Any, compression: str | None, order: str
) -> None:
    real = RANDOM.random((40, 30))
    values = real.astype(kind) if kind is np.float32 else (real * np.iinfo(kind).max).astype(kind)
    file = tmp_path / "a.tif"
    options: dict[str, Any] = {"byteorder": order, "compression": compression}
    tifffile.imwrite(file, values, photometric=photometric, **options)
    most = 1 if kind is np.float32 else np.iinfo(kind).max
    expected = np.round(255 * (values.astype(float) / most))
    expected = 255 - expected if photometric == "miniswhite" else expected
    assert np.abs(read(file) - three(expected)).max() == 0


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bits_in_thirty_two(tmp_path: Path, compression: str | None, order: str) -> None:
    values = RANDOM.integers(0, 65536, (40, 30)).astype(np.int32)
    options: dict[str, Any] = {"byteorder": order, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **options)
    assert np.array_equal(read(tmp_path / "a.tif"), three(np.round(values / 257)))


def test_one_bit_whose_zero_is_white(tmp_path: Path) -> None:
    values = RANDOM.random((16, 24)) > 0.5
    for photometric, turned in (("minisblack", False), ("miniswhite", True)):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric)
        assert np.array_equal(read(tmp_path / "a.tif"), three(255 * (values ^ turned)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha", "unspecified"])
def test_a_fourth_channel_is_what_the_file_says(tmp_path: Path, alpha: str, kind: Any) -> None:
    most = np.iinfo(kind).max
    colour, share = RANDOM.random((20, 30, 3)), RANDOM.random((20, 30, 1)).round(1)
    stored = colour * share if alpha == "assocalpha" else colour
    values = (np.concatenate([stored, share], -1) * most).round().astype(kind)
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, values, photometric="rgb", extrasamples=[alpha])
    over_white = colour if alpha == "unspecified" else colour * share + 1 - share
    assert np.abs(read(file) - 255 * over_white).max() < 2.5  # premultiplied levels are coarse


def test_a_premultiplied_grey(tmp_path: Path) -> None:
    grey, share = RANDOM.random((20, 30)), RANDOM.random((20, 30)).round(1)
    values = (np.stack([grey * share, share], -1) * 255).round().astype(np.uint8)
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, values, photometric="minisblack", extrasamples=["assocalpha"])
    assert np.abs(read(file) - 255 * three(grey * share + 1 - share)).max() < 2.5


def test_twelve_bits_fill_the_range(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 4096, (6, 8))
    pairs = values.reshape(-1, 2)
    data = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    )
    tags = [
        (256, 8),
        (257, 6),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 6),
        (279, 72),
    ]
    body = data.astype(np.uint8).tobytes()
    directory = struct.pack("<H", len(tags))
    for tag, value in tags:
        directory += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    file = tmp_path / "a.tif"
    file.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + bytes(4))
    assert np.array_equal(read(file), three(np.round(255 * values / 4095)))


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_integers_with_a_sign_are_refused(tmp_path: Path, kind: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((9, 9), 3, kind), photometric="minisblack")
    assert "have a sign" in refused(tmp_path / "a.tif")


# JPEG: ink that is stored inverted


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
def test_inks_are_not_turned_round(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    picture = picture.resize((64, 64), Image.Resampling.NEAREST).convert(mode)
    picture.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert np.abs(read(tmp_path / "a.jpg") - np.asarray(picture.convert("RGB"))).mean() < 4


# Metadata: used for the orientation, else left alone


def broken_exif(kind: str) -> bytes:
    """EXIF that says orientation 6 behind a damaged head, or in entries that lead nowhere."""
    entry = struct.pack("<HHII", 0x112, 3, 1, 6)
    far = struct.pack("<HHII", 0x8769, 4, 1, 2**31)  # a directory beyond the end
    return {
        "head": b"\0\x08\0\0" + entry,
        "cut": b"II*\0\x08\0\0\0\x05\0" + entry[:7],
        "far": b"II*\0\x08\0\0\0\x01\0" + far + bytes(4),
    }[kind]


@pytest.mark.parametrize("kind", ["head", "cut", "far"])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_broken_exif_is_left_alone(tmp_path: Path, ending: str, kind: str) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (12, 9, 3), dtype=np.uint8))
    options = {"lossless": True} if ending == "webp" else {}
    picture.save(tmp_path / f"plain.{ending}", **options)
    raw = b"Exif\0\0" + broken_exif(kind)
    picture.save(tmp_path / f"a.{ending}", exif=raw if ending == "jpg" else raw[6:], **options)
    assert np.array_equal(read(tmp_path / f"a.{ending}"), read(tmp_path / f"plain.{ending}"))


def test_a_tiff_with_a_directory_that_leads_nowhere(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (12, 9), dtype=np.uint8)
    far = [(34665, 4, 1, 2**31, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", extratags=far)
    assert np.array_equal(read(tmp_path / "a.tif"), three(values))


def test_damaged_and_large_metadata_of_a_sound_png(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    large = zlib.compress(bytes(3 * 2**20))
    turned = chunk(
        b"eXIf", b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x112, 3, 1, 6) + bytes(4)
    )
    text = chunk(b"zTXt", b"note\0\0" + large)
    wrong = text[:-1] + bytes([text[-1] ^ 1])
    for extra, turn in (
        ([text], 0),
        ([wrong], 0),
        ([chunk(b"iCCP", b"icc\0\0" + large)], 0),
        ([chunk(b"iCCP", b"icc\0\0no zip")], 0),
        ([text, turned], -1),
        ([text, chunk(b"eXIf", b"\0\x08\0\2")], 0),
        ([chunk(b"pHYs", b"")], 0),
        ([chunk(b"gAMA", b"\0\0\0\0")], 0),
    ):
        file = png(tmp_path / "a.png", (4, 6), 8, 2, rows, *extra)
        assert np.array_equal(read(file), np.rot90(values, turn)), extra[0][4:8]
    file.write_bytes(file.read_bytes().replace(b"IDAT", b"IDAX"))
    refused(file)


# Folders: what drives and systems leave beside the pictures


def test_what_a_drive_left_is_no_example_and_is_said(tmp_path: Path) -> None:
    for name in (
        "a.png",
        "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
        ".thumbnails/a.png",
        "._a.png",
        "sub/@eaDir/b.png",
        "#recycle/c.png",
        "__MACOSX/._a.png",
        "sub/b.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for name in ("Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0")
    with pytest.warns(UserWarning, match=r"6 hidden or left-behind .* the first is .*#recycle"):
        assert Pictures.folder(tmp_path).names == ("a.png", "sub/b.png")
