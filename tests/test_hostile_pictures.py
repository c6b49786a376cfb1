"""Pictures of any size, mode and name, and files that only say that they are pictures.

Whatever a file holds, it comes out as RGB or as a `PictureError` that names it and the way out;
nothing hangs, nothing takes gigabytes, nothing is run.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import resource
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bench.pictures.data import PictureError
from tests.picture_files import (
    chunk,
    coloured,
    jpeg,
    png,
    read,
    refused,
    some,
    three,
    tiff,
    webp,
    write,
)


def outcome(path: Path) -> np.ndarray | str:
    """The picture, or what is said of it."""
    try:
        return read(path)
    except PictureError as error:
        return str(error)


pytestmark = pytest.mark.timeout(120)  # what must not wait: a pipe would wait for ever


# ------------------------------------------------------------------ what can be read

MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "I;16",
    "I;16B",
    "I",
    "F",
)
HOLDS = {  # what each format can hold as it is
    "png": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
    "tif": {*MODES},
    "webp": {"RGB", "RGBA"},
}
sizes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 3), st.integers(200, 3000)),  # a line, lying or standing
).flatmap(lambda size: st.sampled_from([size, size[::-1]]))


def random_picture(mode: str, height: int, width: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """A picture of a mode, and what it must come out as: (H, W, 3) levels."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    grey, share = levels[..., 0], levels[..., 3:] / 255
    bands = [Image.fromarray(levels[..., i]) for i in range(4)]
    palette = random.integers(0, 256, (256, 3), dtype=np.uint8)
    colours = Image.fromarray(grey).convert("P")
    colours.putpalette(palette.tobytes())
    values = random.integers(0, 65536, (height, width))
    real = random.random((height, width), dtype=np.float32)

    def over_white(colour: np.ndarray) -> np.ndarray:
        return colour * share + 255 * (1 - share)

    if mode in ("I;16", "I;16B"):
        data = values.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
        return Image.frombytes(mode, (width, height), data), three(np.round(values / 257))
    if mode == "PA":
        picture = colours.convert("PA")
        picture.putalpha(bands[3])
        return picture, over_white(palette[grey])
    if mode in ("RGB", "CMYK", "YCbCr", "LAB"):
        picture = Image.merge("LAB" if mode == "LAB" else "RGB", bands[:3])
        picture = picture if mode == "LAB" else picture.convert(mode)
        return picture, np.asarray(picture.convert("RGB"))
    return {
        "1": (Image.fromarray(grey > 127), three((grey > 127) * 255)),
        "L": (Image.fromarray(grey), three(grey)),
        "LA": (Image.merge("LA", bands[::3]), over_white(three(grey))),
        "P": (colours, palette[grey]),
        "I": (Image.fromarray(values.astype(np.int32)), three(np.round(values / 257))),
        "F": (Image.fromarray(real), three(np.round(real * 255))),
        "RGBA": (Image.fromarray(levels, "RGBA"), over_white(levels[..., :3])),
    }[mode]


@pytest.mark.parametrize("mode", MODES)
@settings(parent=some, max_examples=25)
@given(size=sizes, seed=st.integers(0, 99), data=st.data())
def test_every_mode_and_size_comes_out_as_rgb(
    tmp_path: Path, mode: str, size: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    picture, expected = random_picture(mode, *size, seed)
    ending = data.draw(st.sampled_from([e for e, modes in sorted(HOLDS.items()) if mode in modes]))
    path = tmp_path / f"{mode.replace(';', '')}-{size[0]}-{size[1]}-{seed}.{ending}"
    picture.save(path, **({"lossless": True, "exact": True} if ending == "webp" else {}))
    shown = read(path)
    assert shown.shape == (*size, 3)
    most = 1.01 if mode in ("LA", "PA", "RGBA") else 0  # laying over white rounds
    assert np.abs(shown - expected.astype(float)).max() <= most


ORIENTED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}


@some
@given(
    size=sizes,
    orientation=st.integers(0, 10),
    ending=st.sampled_from(["png", "tif", "webp", "jpg"]),
)
def test_all_orientations_of_all_formats(
    tmp_path: Path, size: tuple[int, int], orientation: int, ending: str
) -> None:
    """One that is none of the eight leaves the picture as it is."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([rows * 255 // size[0], columns * 255 // size[1], 0 * rows], -1)
    pixels = pixels.astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"{size[0]}-{size[1]}-{orientation}.{ending}"
    options: dict[str, Any] = {"webp": {"lossless": True}}.get(ending, {})
    if ending == "jpg":
        options = {"quality": 100, "subsampling": 0}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    expected = ORIENTED.get(orientation, ORIENTED[1])(pixels)
    shown = read(path)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= (3 if ending == "jpg" else 0)


# Another colour space than sRGB's. It holds the second it was made in, so no name of a test may
# come from its bytes: two processes would name the test differently.
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
PROFILES = {"none": b"", "broken": b"broken", "zeros": b"\0" * 200, "cut": PROFILE[:-7]}


@pytest.mark.parametrize("profile", [*PROFILES.values(), PROFILE], ids=[*PROFILES, "whole"])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_a_colour_profile_changes_nothing_and_a_broken_one_harms_nothing(
    tmp_path: Path, profile: bytes, ending: str
) -> None:
    plain = write(tmp_path / f"plain.{ending}", coloured(9, 7))
    with_profile = write(tmp_path / f"with.{ending}", coloured(9, 7), icc_profile=profile)
    with Image.open(with_profile) as opened:
        assert opened.info.get("icc_profile", b"") == profile
    assert np.array_equal(read(plain), read(with_profile))


def test_lab_means_the_colours_that_a_profile_says(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8) + np.array([180, 90, 40], np.uint8)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(Image.fromarray(pixels), *profiles, outputMode="LAB")
    assert np.abs(read(write(tmp_path / "a.tif", lab)).astype(int) - pixels).max() <= 4


@pytest.mark.parametrize("pages", [1, 2, 5])
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_the_first_of_several_frames(tmp_path: Path, pages: int, ending: str) -> None:
    frames = [Image.fromarray(coloured(6, 5, seed)) for seed in range(pages)]
    options = {"lossless": True} if ending == "webp" else {}
    path = tmp_path / f"a.{ending}"
    write(path, frames[0], save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(read(path), np.asarray(frames[0]))


# ------------------------------------------------------------------ what cannot be read


@functools.cache
def whole_files() -> dict[str, bytes]:
    """One sound file of every kind, small enough to be cut at every place."""
    files = {}
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for kind in ("png", "jpeg", "tiff", "webp"):
        for mode in ("L", "RGB"):
            picture, file = random_picture(mode, 12, 9, 0)[0], io.BytesIO()
            picture.save(file, kind, exif=exif, icc_profile=PROFILE[:60])
            files[f"{mode}.{kind}"] = file.getvalue()
    return files


@pytest.mark.parametrize("name", sorted(whole_files()))
def test_cut_at_every_place_it_is_refused_or_whole(tmp_path: Path, name: str) -> None:
    """A file without its last bytes may still hold every pixel; if so they are the same."""
    whole, path = whole_files()[name], tmp_path / name
    path.write_bytes(whole)
    expected = read(path)
    kept = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        os.utime(path, ns=(length, length))
        shown = outcome(path)
        if isinstance(shown, str):
            assert name in shown
            assert "start again" in shown
            continue
        kept += 1
        assert np.array_equal(shown, expected)
    assert kept < len(whole) / 5


@settings(parent=some, max_examples=300)
@given(
    name=st.sampled_from(sorted(whole_files())),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_changed_bytes_end_in_a_picture_or_a_picture_error(
    tmp_path: Path, name: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(whole_files()[name])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / name
    path.write_bytes(data)
    os.utime(path, ns=(zlib.crc32(data), 0))
    shown = outcome(path)
    if isinstance(shown, str):
        assert name in shown
    else:
        assert shown.size <= 3 * 2**22


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize(
    "text", [b"", b"\0", b"not a picture\n", b"<svg onload='alert(1)'/>", b"%!PS-Adobe-3.0 EPSF"]
)
def test_files_that_only_end_like_pictures(tmp_path: Path, ending: str, text: bytes) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(text)
    refused(path, "it is empty" if not text else "it is no JPEG")


def test_other_formats_are_not_even_tried(tmp_path: Path) -> None:
    """Some of Pillow's readers run other programs."""
    for kind in ("gif", "bmp", "eps", "pdf"):
        path = tmp_path / f"{kind}.png"
        random_picture("RGB", 4, 4, 0)[0].save(path, kind)
        refused(path, "it is no JPEG, PNG, TIFF or WebP")


def bombs() -> dict[str, tuple[bytes, str]]:
    """Small files that would take gigabytes, and what is said of them."""
    pixels = "more than 89,478,485 pixels"
    claims = r"it claims 81,000,000 pixels in \d+ bytes"
    return {
        "head.png": (png(60000, 60000), pixels),
        "most.png": (png(2**31 - 1, 2**31 - 1), pixels),
        "claim.png": (png(9000, 9000), claims),
        "head.tif": (tiff(60000, 60000), pixels),
        "most.tif": (tiff(2**31 - 1, 2**31 - 1), pixels),
        "claim.tif": (tiff(9000, 9000), claims),
        "head.webp": (webp(16384, 16384), pixels),
        "vast.webp": (webp(2**24, 2**24), pixels),
        "claim.webp": (webp(9000, 9000), claims),
        "head.jpg": (jpeg(65000, 65000), pixels),
        "claim.jpg": (jpeg(9000, 9000), claims),
    }


def bombs_beside() -> dict[str, bytes]:
    """The same in what is no pixel, and is not looked at."""
    packer = zlib.compressobj(9)
    zeros = b"".join([*(packer.compress(bytes(2**20)) for _ in range(64)), packer.flush()])
    return {
        "ztxt.png": chunk(b"zTXt", b"k\0\0" + zeros),
        "itxt.png": chunk(b"iTXt", b"k\0\1\0\0\0" + zeros),
        "iccp.png": chunk(b"iCCP", b"k\0\0" + zeros),
        "many.png": chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20))) * 70,
    }


@contextlib.contextmanager
def little_memory_and_time(name: str) -> Iterator[None]:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert spent < 100_000, name  # kibibytes on Linux
    assert time.process_time() - started < 2, name


def test_bombs_are_refused_in_little_memory_and_time(tmp_path: Path) -> None:
    for name, (data, says) in bombs().items():
        path = tmp_path / name
        path.write_bytes(data)
        assert len(data) < 100_000
        with little_memory_and_time(name):
            refused(path, says)


def test_a_bomb_beside_the_pixels_does_not_go_off(tmp_path: Path) -> None:
    for name, extra in bombs_beside().items():
        path = tmp_path / name
        path.write_bytes(png(4, 4, bytes(4 * 13), extra=extra))
        with little_memory_and_time(name):
            assert (read(path) == 0).all()


def test_a_large_blank_photograph_is_no_bomb(tmp_path: Path) -> None:
    for ending in ("png", "jpg"):
        path = write(tmp_path / f"blank.{ending}", Image.new("RGB", (2500, 2000), "white"))
        assert read(path).shape == (2000, 2500, 3)
