"""Pictures of any size, mode and name, and files that only say that they are pictures.

Whatever a file holds, it comes out as RGB or as a `PictureError` that names it and the way out;
nothing hangs, nothing takes gigabytes, nothing is run.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import shutil
import stat
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bench.cli import main
from bench.files import printable
from bench.pictures.data import PictureError, Pictures
from bench.pictures.downloads import content_digest
from bench.pictures.perceptual import VGGFeatures
from bench.registry import preset, task_class
from bench.run.records import Record, dumps, loads
from bench.tasks.style import content

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
    assert 0 <= batch.min() <= batch.max() <= 1
    return (batch[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)


def outcome(path: Path) -> np.ndarray | str:
    """The picture, or what is said of it."""
    try:
        return read(path)
    except PictureError as error:
        return str(error)


def refused(path: Path, says: str = "") -> str:
    """The error of a file that is no usable picture."""
    with pytest.raises(PictureError, match=says) as caught:
        Pictures([path]).to(CPU)
    text = str(caught.value)
    assert printable(path) in text
    assert any(way in text for way in WAY_OUT.split("|"))
    return text


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
    shape = (height, width)
    levels = random.integers(0, 256, (*shape, 4), dtype=np.uint8)
    grey, alpha = levels[..., 0], levels[..., 3]

    def over_white(colour: np.ndarray) -> np.ndarray:
        share = alpha[..., None] / 255
        return colour * share + 255 * (1 - share)

    def three(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[..., None], 3, -1).astype(float)

    if mode == "1":
        return Image.fromarray(grey > 127), three((grey > 127) * 255)
    if mode == "L":
        return Image.fromarray(grey), three(grey)
    if mode == "LA":
        made = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
        return made, over_white(three(grey))
    if mode in ("P", "PA"):
        palette = random.integers(0, 256, (256, 3), dtype=np.uint8)
        made = Image.fromarray(grey).convert("P")
        made.putpalette(palette.tobytes())
        if mode == "P":
            return made, palette[grey].astype(float)
        made = made.convert("PA")
        made.putalpha(Image.fromarray(alpha))
        return made, over_white(palette[grey].astype(float))
    if mode.startswith("I"):
        values = random.integers(0, 65536, shape)
        expected = three(np.round(values / 257))
        if mode == "I":
            return Image.fromarray(values.astype(np.int32)), expected
        order = ">u2" if mode == "I;16B" else "<u2"
        data = values.astype(order).tobytes()
        return Image.frombytes(mode, (width, height), data), expected
    if mode == "F":
        real = random.random(shape, dtype=np.float32)
        return Image.fromarray(real), three(np.round(real * 255))
    if mode == "RGBA":
        return Image.fromarray(levels, "RGBA"), over_white(levels[..., :3].astype(float))
    if mode == "LAB":
        made = Image.merge("LAB", [Image.fromarray(levels[..., i]) for i in range(3)])
        return made, np.asarray(made.convert("RGB")).astype(float)
    made = Image.fromarray(levels[..., :3]).convert(mode)
    return made, np.asarray(made.convert("RGB")).astype(float)


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
    found = read(path)
    assert found.shape == (*size, 3)
    assert np.abs(found - expected).max() <= 1.01  # laying over white rounds


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
    found = read(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (3 if ending == "jpg" else 0)


def adobe_like() -> bytes:
    """A profile with other primaries than sRGB's."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return lab.tobytes()


@pytest.mark.parametrize("profile", [b"", b"broken", b"\0" * 200, adobe_like()[:-7], adobe_like()])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_a_colour_profile_changes_nothing_and_a_broken_one_harms_nothing(
    tmp_path: Path, profile: bytes, ending: str
) -> None:
    picture, _ = random_picture("RGB", 9, 7, 0)
    picture.save(tmp_path / f"plain.{ending}")
    picture.save(tmp_path / f"with.{ending}", icc_profile=profile)
    with Image.open(tmp_path / f"with.{ending}") as opened:
        assert opened.info.get("icc_profile", b"") == profile
    one, other = read(tmp_path / f"plain.{ending}"), read(tmp_path / f"with.{ending}")
    assert np.array_equal(one, other)


@pytest.mark.parametrize("pages", [1, 2, 5])
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_the_first_of_several_frames(tmp_path: Path, pages: int, ending: str) -> None:
    frames = [random_picture("RGB", 6, 5, seed)[0] for seed in range(pages)]
    path = tmp_path / f"a.{ending}"
    lossless = {"lossless": True} if ending == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **lossless)
    assert np.array_equal(read(path), np.asarray(frames[0]))


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


def png(
    width: int, height: int, rows: bytes = b"", *, bits: int = 8, kind: int = 2, extra: bytes = b""
) -> bytes:
    """A PNG file of these raw rows; what its head claims need not be what it holds."""
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows or bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_sixteen_bits_of_colour_are_cut_to_eight(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 7, dtype=np.uint16)
    values = values[: len(values) // 3 * 3].reshape(1, -1, 3)
    path = tmp_path / "a.png"
    path.write_bytes(png(values.shape[1], 1, b"\0" + values.astype(">u2").tobytes(), bits=16))
    assert np.array_equal(read(path), values >> 8)
    with_alpha = np.dstack([values, np.full(values.shape[:2], 65535, np.uint16)])
    rows = b"\0" + with_alpha.astype(">u2").tobytes()
    path.write_bytes(png(values.shape[1], 1, rows, bits=16, kind=6))
    assert np.array_equal(read(path), values >> 8)


@pytest.mark.parametrize(
    ("kind", "bits", "key", "rows"),
    [
        (0, 8, struct.pack(">H", 9), bytes([0, 9, 0])),
        (0, 16, struct.pack(">H", 300), b"\0" + struct.pack(">HH", 300, 0)),
        (2, 8, struct.pack(">HHH", 1, 2, 3), bytes([0, 1, 2, 3, 0, 0, 0])),
    ],
)
def test_one_transparent_colour_is_white(
    tmp_path: Path, kind: int, bits: int, key: bytes, rows: bytes
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, rows, bits=bits, kind=kind, extra=chunk(b"tRNS", key)))
    assert read(path).tolist() == [[[255] * 3, [0] * 3]]


# ------------------------------------------------------------------ what cannot be read


def whole_files() -> dict[str, bytes]:
    """One sound file of every kind, small enough to be cut at every place."""
    found = {}
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for ending in ("png", "jpg", "tif", "webp"):
        for mode in ("L", "RGB"):
            picture, file = random_picture(mode, 12, 9, 0)[0], io.BytesIO()
            kind = {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending)
            picture.save(file, kind, exif=exif, icc_profile=adobe_like()[:60])
            found[f"{mode}.{ending}"] = file.getvalue()
    return found


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
        found = outcome(path)
        if isinstance(found, str):
            assert name in found
            assert "start again" in found
            continue
        kept += 1
        assert np.array_equal(found, expected)
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
    found = outcome(path)
    if isinstance(found, str):
        assert name in found
    else:
        assert found.size <= 3 * 2**22


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


def zipped_zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(2**20)) for _ in range(mebibytes)]
    return b"".join([*parts, packer.flush()])


def tiff(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 10), *more]
    body = b"".join(struct.pack("<HHII", *each) for each in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


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
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


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
    zeros = zipped_zeros(64)
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
        path = tmp_path / f"blank.{ending}"
        Image.new("RGB", (2500, 2000), "white").save(path)
        assert read(path).shape == (2000, 2500, 3)


# ------------------------------------------------------------------ folders


def small(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), 7, np.uint8)).save(path, "png")
    return path


@pytest.mark.parametrize("kind", ["pipe", "socket", "null", "zero", "folder", "dangling", "loop"])
def test_what_is_no_file_is_named_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pictures"
    small(folder / "good.png")
    path = folder / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind in ("null", "zero"):
        path.symlink_to(f"/dev/{kind}")
    elif kind == "folder":
        small(path / "within.png")
    elif kind == "dangling":
        path.symlink_to(tmp_path / "absent.png")
    else:
        path.symlink_to(path)
    refused(path, r"x\.png")
    found = Pictures.folder(folder)
    if kind == "folder":  # a folder may be called what it likes
        assert found.to(CPU).names == ("good.png", "x.png/within.png")
    else:
        with pytest.raises(PictureError, match=r"x\.png"):
            _ = found.digest


def test_loops_of_links_end(tmp_path: Path) -> None:
    small(tmp_path / "a/b/picture.png")
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(tmp_path / "a")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert Pictures.folder(tmp_path).names == ("a/b/picture.png",)
    with pytest.raises(PictureError, match=r"cannot be read.*check the path"):
        Pictures.folder(tmp_path / "one")


def test_folders_and_names_that_no_system_takes(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "file.png" / "below"):
        small(tmp_path / "file.png")
        with pytest.raises(PictureError, match="check the path"):
            Pictures.folder(path)
        with pytest.raises(PictureError, match="check the path"):
            Pictures([path]).to(CPU)


UNREADABLE = """
import os, sys
from pathlib import Path
from bench.pictures.data import PictureError, Pictures
if os.getuid() == 0 and "setpriv" not in sys.argv:
    os.setgid(65534)
    os.setuid(65534)
for place in sys.argv[2:]:
    try:
        pictures = Pictures.folder(Path(place))
        pictures.digest
        list(pictures.examples())
    except PictureError as error:
        print(error)
    else:
        print("read", pictures.names)
"""


def test_unreadable_files_and_folders_are_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a process without the rights of the super-user, who may read everything."""
    root = tmp_path_factory.mktemp("open")
    for name in ("file", "folder", "inner", "search", "beside"):
        small(root / name / "deep" / "a.png")
    small(root / "beside" / "b.png")
    (root / "beside/deep").chmod(0)
    (root / "file/deep/a.png").chmod(0)
    (root / "folder").chmod(0)
    (root / "inner/deep").chmod(0)
    (root / "search/deep").chmod(0o444)
    for above in (root, *root.parents):
        if os.stat(above).st_uid == os.getuid() and above not in (Path("/"), Path("/tmp")):
            above.chmod(above.stat().st_mode | 0o055)
    places = [str(root / name) for name in ("file", "folder", "inner", "search", "beside")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", UNREADABLE, "", *places]
    if os.getuid() == 0 and shutil.which("setpriv"):  # root without root's rights
        command[3] = "setpriv"
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    for name in ("folder", "inner", "beside/deep"):
        (root / name).chmod(0o755)
    if "Permission" in done.stderr and not done.stdout and command[0] != "setpriv":
        pytest.skip("the interpreter itself lies where others may not read")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line for line in lines if line.startswith("read")] == ["read ('b.png',)"]
    assert f"are left out: {root / 'beside/deep'} cannot be read (Permission denied)" in done.stderr
    for name in ("file/deep/a.png", "folder", "inner/deep", "search/deep"):
        assert any(str(root / name) in line and "ermission" in line for line in lines), lines


# ------------------------------------------------------------------ names

NAMES = (
    "a b.png", " lead.png", "it's \"q\".png", "two\nlines.png", "tab\t.png", "cr\r.png", "-rf.png",
    "--out.png", "=cmd|' /C calc'!A0.png", "+1.png", "@x.png", "'=x.png", "日本語　空白.png",
    "Ελληνικά.png", "عربي\u200cا.png", "é.png", "e\u0301.png", "🖼.png", "\u202egnp.exe.png",
    "\x1b[2J\x1b]0;t\x07.png", "<script>alert(1)</script>.png", "&lt;.png", "a,b;c.png", "a\\b.png",
    "%s{0}$x`id`.png", "[red]x[-red].png", "CON.png", "a" * 200 + ".png",
)  # fmt: skip
RAW = (b"caf\xe9.png", b"\xff\xfe.png", b"ok\xc3.png")


def test_every_name_is_told_apart_and_can_be_written_anywhere(tmp_path: Path) -> None:
    for name in NAMES:
        small(tmp_path / name.replace("/", "_"))
    for raw in RAW:
        small(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)))
    pictures = Pictures.folder(tmp_path).to(CPU)
    assert len(pictures.names) == len(NAMES) + len(RAW)
    assert "caf\\udce9.png" in pictures.names
    assert "two\\nlines.png" in pictures.names
    assert {"日本語　空白.png", "Ελληνικά.png", "عربي\u200cا.png", "🖼.png", "a b.png"} < {
        *pictures.names
    }
    assert len(pictures.digest) == 64
    for name, _ in pictures.examples():
        name.encode()  # as UTF-8
        assert not any(c in name for c in "\n\r\t\x1b\u202e")
        row = Record("t", "p", "e", "m", 0, "c", "s=1", name, "loss", 0.5)
        assert loads(dumps([row]), "a file") == [row]


def test_the_name_of_a_bad_picture_does_not_command_the_terminal(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "\x1b[2Jnew\nline\udcff"
    folder.mkdir()
    (folder / "\x1b[31m\udce9.png").write_bytes(b"x")
    words = ["run", "compression", "--preset", "smoke", "--train-data", str(folder)]
    assert main([*words, "--test-data", str(folder), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "\\x1b[2Jnew\\nline\\udcff/\\x1b[31m\\udce9.png" in said
    assert "\x1b" not in said


@settings(parent=some, max_examples=40)
@given(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
    )
)
def test_any_name_can_be_recorded(tmp_path: Path, stem: str) -> None:
    folder = tmp_path / str(zlib.crc32(stem.encode()))
    path = folder / f"x{stem}.png"
    if len(os.fsencode(path.name)) > 250:
        return
    small(path)
    (name,) = Pictures.folder(folder).names
    row = Record("t", "p", "e", "m", 0, "c", "s=1", name, "loss", 0.5)
    assert loads(dumps([row]), "a file") == [row]


# ------------------------------------------------------------------ the painting and VGG's weights


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder", "absent"])
def test_a_painting_or_weights_that_are_no_file(tmp_path: Path, kind: str) -> None:
    for ending in ("png", "pth", "safetensors"):
        path = tmp_path / f"x.{ending}"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()
        with pytest.raises(PictureError, match=f"x.{ending} cannot be"):
            content(str(path), "vgg16-convs")


def test_a_painting_that_is_none(tmp_path: Path, capsys) -> None:
    for name, data in (("text.png", b"x"), ("bomb.webp", webp(9000, 9000)), ("empty.jpg", b"")):
        path = tmp_path / name
        path.write_bytes(data)
        words = ["run", "style", "--preset", "smoke", "--methods", "fixed_grid", "--settings", "1"]
        assert main([*words, "--style", str(path), "--out", str(tmp_path / "out")]) == 2
        assert name in capsys.readouterr().err


class Payload:
    """What a pickle can do to whoever loads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("ending", ["pth", "safetensors", "bin"])
@pytest.mark.parametrize("form", ["plain", "torch", "old torch", "cut", "empty"])
def test_hostile_weights_run_nothing(tmp_path: Path, capsys, ending: str, form: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / f"vgg.{ending}"
    hostile = {"features.0.weight": Payload(mark)}
    if form == "plain":
        path.write_bytes(pickle.dumps(hostile))
    elif form in ("torch", "old torch"):
        torch.save(hostile, path, _use_new_zipfile_serialization=form == "torch")
    else:
        path.write_bytes(b"" if form == "empty" else pickle.dumps(hostile)[:-3])
    with pytest.raises(ValueError, match="no weights that can be read safely"):
        VGGFeatures(("relu1_2",), path)
    words = ["run", "style", "--preset", "smoke", "--methods", "fixed_grid", "--settings", "1"]
    assert main([*words, "--vgg-weights", str(path), "--out", str(tmp_path / "out")]) == 2
    assert path.name in capsys.readouterr().err
    assert not mark.exists()


def test_a_payload_in_the_weights_would_have_run(tmp_path: Path) -> None:
    """The payload itself is sound: plain unpickling runs it."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_the_digest_of_a_style_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = small(tmp_path / "a.png")
    assert content(str(path), "vgg16-convs") == content_digest(path.read_bytes(), "a.png")
    task = preset(task_class("style"), "smoke").task
    assert task.fields()["style"] != content(str(path), "vgg16-convs")
