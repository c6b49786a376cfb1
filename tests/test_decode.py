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
from tests.picture_files import chunk, exif_entry, packed, png, three, tiff, write

RANDOM = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # as `bench.pictures.data` does


@pytest.fixture(autouse=True)
def _drawn_anew() -> None:
    """What a test draws must not depend on which tests ran before it in the same process."""
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state


orders = pytest.mark.parametrize("order", "<>")
compressions = pytest.mark.parametrize("compression", [None, "zlib"])


def read(path: Path, data: bytes = b"") -> np.ndarray:
    """(H, W, 3) levels as integers, of a file that may first be written."""
    if data:
        path.write_bytes(data)
    levels = read_picture(path)
    assert isinstance(levels, np.ndarray), levels
    return levels.transpose(1, 2, 0).astype(int)


def read_tiff(folder: Path, values: np.ndarray, **options: Any) -> np.ndarray:
    tifffile.imwrite(folder / "a.tif", values, **options)
    return read(folder / "a.tif")


def raw(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in values)


# PNG: one transparent colour, in the file's own depth


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_every_depth_is_white(tmp_path: Path, depth: int) -> None:
    most = 2**depth - 1
    for key in {0, 1, most // 3, most}:
        values = RANDOM.integers(0, most + 1, (5, 16))
        values[0] = key
        values[1] = key ^ 1  # its neighbour is not clear
        clear = chunk(b"tRNS", struct.pack(">H", key))
        data = png(16, 5, packed(values, depth), bits=depth, kind=0, extra=clear)
        expected = np.where(values == key, 255, np.round(255 * values / most))
        assert np.array_equal(read(tmp_path / "a.png", data), three(expected)), key


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_both_depths_is_white(tmp_path: Path, depth: int) -> None:
    values = RANDOM.integers(0, 2**depth, (4, 6, 3)).astype(">u2" if depth == 16 else np.uint8)
    key = values[1, 2].copy()
    values[3] = key
    values[2] = key ^ 1  # in 16 bits the upper bytes are those of the clear colour
    clear = chunk(b"tRNS", key.astype(">u2").tobytes())
    shown = read(tmp_path / "a.png", png(6, 4, raw(values), bits=depth, extra=clear))
    levels = values.astype(int) >> (depth - 8)
    expected = np.where((values == key).all(-1, keepdims=True), 255, levels)
    assert np.array_equal(shown, expected)
    assert (expected[2] != 255).any()


def test_sixteen_bits_of_colour_are_cut_to_eight(tmp_path: Path) -> None:
    values = np.arange(0, 65535, 7, dtype=">u2")[:9360].reshape(1, -1, 3)
    size = (values.shape[1], 1)
    assert np.array_equal(read(tmp_path / "a.png", png(*size, raw(values), bits=16)), values >> 8)
    with_alpha = np.dstack([values, np.full(values.shape[:2], 65535)]).astype(">u2")
    data = png(*size, raw(with_alpha), bits=16, kind=6)
    assert np.array_equal(read(tmp_path / "b.png", data), values >> 8)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_palette_lies_over_white(tmp_path: Path, depth: int) -> None:
    count = 2**depth
    palette = RANDOM.integers(0, 256, (count, 3), dtype=np.uint8)
    alpha = RANDOM.integers(0, 256, count - 1, dtype=np.uint8)  # those not named are opaque
    values = RANDOM.integers(0, count, (5, 16))
    extra = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", alpha.tobytes())
    data = png(16, 5, packed(values, depth), bits=depth, kind=3, extra=extra)
    share = np.append(alpha, 255)[values][..., None] / 255
    expected = palette[values] * share + 255 * (1 - share)
    assert np.abs(read(tmp_path / "a.png", data) - expected).max() <= 1


# TIFF: what zero and the other channels mean


@orders
@compressions
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_zero_is_black_or_white_as_the_file_says(
    tmp_path: Path, photometric: str, kind: Any, compression: str | None, order: Any
) -> None:
    real = RANDOM.random((40, 30))
    most = 1 if kind is np.float32 else np.iinfo(kind).max
    values = (real * most).astype(kind)
    options: dict[str, Any] = {"byteorder": order, "compression": compression}
    expected = np.round(255 * (values.astype(float) / most))
    expected = 255 - expected if photometric == "miniswhite" else expected
    assert np.array_equal(
        read_tiff(tmp_path, values, photometric=photometric, **options), three(expected)
    )


@orders
@compressions
def test_sixteen_bits_in_thirty_two(tmp_path: Path, compression: str | None, order: Any) -> None:
    values = RANDOM.integers(0, 65536, (40, 30)).astype(np.int32)
    options: dict[str, Any] = {"byteorder": order, "compression": compression}
    shown = read_tiff(tmp_path, values, photometric="minisblack", **options)
    assert np.array_equal(shown, three(np.round(values / 257)))


@pytest.mark.parametrize(("photometric", "turned"), [("minisblack", False), ("miniswhite", True)])
def test_one_bit_whose_zero_is_white(tmp_path: Path, photometric: str, turned: bool) -> None:
    values = RANDOM.random((16, 24)) > 0.5
    shown = read_tiff(tmp_path, values, photometric=photometric)
    assert np.array_equal(shown, three(255 * (values ^ turned)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha", "unspecified"])
def test_a_fourth_channel_is_what_the_file_says(tmp_path: Path, alpha: str, kind: Any) -> None:
    colour, share = RANDOM.random((20, 30, 3)), RANDOM.random((20, 30, 1)).round(1)
    stored = colour * share if alpha == "assocalpha" else colour
    values = (np.concatenate([stored, share], -1) * np.iinfo(kind).max).round().astype(kind)
    shown = read_tiff(tmp_path, values, photometric="rgb", extrasamples=[alpha])
    over_white = colour if alpha == "unspecified" else colour * share + 1 - share
    assert np.abs(shown - 255 * over_white).max() < 2.5  # premultiplied levels are coarse


def test_a_premultiplied_grey(tmp_path: Path) -> None:
    grey, share = RANDOM.random((20, 30)), RANDOM.random((20, 30)).round(1)
    values = (np.stack([grey * share, share], -1) * 255).round().astype(np.uint8)
    shown = read_tiff(tmp_path, values, photometric="minisblack", extrasamples=["assocalpha"])
    assert np.abs(shown - 255 * three(grey * share + 1 - share)).max() < 2.5


def test_twelve_bits_fill_the_range(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 4096, (6, 8))
    one, other = values.reshape(-1, 2).T
    data = np.stack([one >> 4, (one & 15) << 4 | other >> 8, other & 255], 1).astype(np.uint8)
    shown = read(tmp_path / "a.tif", tiff(8, 6, data.tobytes(), bits=12))
    assert np.array_equal(shown, three(np.round(255 * values / 4095)))


UNIT = np.array([[0, 0.5, 1]], dtype=np.float32)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((9, 9), 3, np.int8), "have a sign"),
        (np.full((9, 9), 3, np.int16), "have a sign"),
        (np.array([[0, 514, 131070]], np.int32), "no 16-bit values"),
        (2 * UNIT, r"leave [0, 1]"),
        (np.nan * UNIT, r"leave [0, 1]"),
    ],
)
def test_values_without_a_meaning_are_refused(
    tmp_path: Path, values: np.ndarray, reason: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    assert reason in str(read_picture(tmp_path / "a.tif"))


# JPEG: ink that is stored inverted


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
def test_inks_are_not_turned_round(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    picture = picture.resize((64, 64), Image.Resampling.NEAREST).convert(mode)
    shown = read(write(tmp_path / "a.jpg", picture, quality=95, subsampling=0))
    assert np.abs(shown - np.asarray(picture.convert("RGB"))).mean() < 4


# Metadata: used for the orientation, else left alone

TURNED, FAR = exif_entry(0x112, 3, 6), exif_entry(0x8769, 4, 2**31)  # a directory beyond the end
BROKEN_EXIF = {  # orientation 6 behind a damaged head, or in entries that lead nowhere
    "head": b"\0\x08\0\0" + TURNED,
    "cut": b"II*\0\x08\0\0\0\x05\0" + TURNED[:7],
    "far": b"II*\0\x08\0\0\0\x01\0" + FAR + bytes(4),
}


@pytest.mark.parametrize("kind", BROKEN_EXIF)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_broken_exif_is_left_alone(tmp_path: Path, ending: str, kind: str) -> None:
    pixels = RANDOM.integers(0, 256, (12, 9, 3), dtype=np.uint8)
    options = {"lossless": True} if ending == "webp" else {}
    plain = write(tmp_path / f"plain.{ending}", pixels, **options)
    exif = (b"Exif\0\0" if ending == "jpg" else b"") + BROKEN_EXIF[kind]
    broken = write(tmp_path / f"a.{ending}", pixels, exif=exif, **options)
    assert np.array_equal(read(broken), read(plain))


def test_a_tiff_with_a_directory_that_leads_nowhere(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (12, 9), dtype=np.uint8)
    far = [(34665, 4, 1, 2**31, True)]
    shown = read_tiff(tmp_path, values, photometric="minisblack", extratags=far)
    assert np.array_equal(shown, three(values))


TEXT = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(3 * 2**20)))


@pytest.mark.parametrize(
    ("extra", "turns"),
    [
        (TEXT, 0),
        (TEXT[:-1] + bytes([TEXT[-1] ^ 1]), 0),
        (chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(3 * 2**20))), 0),
        (chunk(b"iCCP", b"icc\0\0no zip"), 0),
        (TEXT + chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0" + TURNED + bytes(4)), -1),
        (TEXT + chunk(b"eXIf", b"\0\x08\0\2"), 0),
        (chunk(b"pHYs", b""), 0),
        (chunk(b"gAMA", b"\0\0\0\0"), 0),
    ],
)
def test_damaged_and_large_metadata_of_a_sound_png(
    tmp_path: Path, extra: bytes, turns: int
) -> None:
    values = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    data = png(6, 4, raw(values), extra=extra)
    assert np.array_equal(read(tmp_path / "a.png", data), np.rot90(values, turns))
    (tmp_path / "b.png").write_bytes(data.replace(b"IDAT", b"IDAX"))
    assert isinstance(read_picture(tmp_path / "b.png"), str)


# Folders: what drives and systems leave beside the pictures


def test_what_a_drive_left_is_no_example_and_is_said(tmp_path: Path) -> None:
    left = ("@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/a.png", "._a.png")
    left += ("sub/@eaDir/b.png", "#recycle/c.png", "__MACOSX/._a.png")
    for name in ("a.png", "sub/b.png", *left):
        write(tmp_path / name, Image.new("RGB", (4, 4)))
    for name in ("Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0")
    with pytest.warns(UserWarning, match=r"6 hidden or left-behind .* the first is .*#recycle"):
        assert Pictures.folder(tmp_path).names == ("a.png", "sub/b.png")
