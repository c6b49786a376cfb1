"""Folders, links and names of every kind, and what is no file where one is expected: the error
names it and the way out, and nothing waits or is run.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli import main
from bench.pictures.data import PictureError, Pictures
from bench.pictures.downloads import content, content_digest
from bench.pictures.perceptual import VGGFeatures
from bench.registry import preset, task_class
from bench.run.records import Record, dumps, loads
from tests.picture_files import CPU, refused, some, webp, write

pytestmark = pytest.mark.timeout(120)  # what must not wait: a pipe would wait for ever


# ------------------------------------------------------------------ folders


def small(path: Path) -> Path:
    return write(path, np.full((4, 4, 3), 7, np.uint8), format="png")


def irregular(path: Path, kind: str) -> None:
    """Something at a path that is no ordinary file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "folder":
        small(path / "within.png")
    elif kind != "absent":
        targets = {"dangling": "absent.png", "loop": path, "null": "/dev/null", "zero": "/dev/zero"}
        path.symlink_to(targets[kind])


@pytest.mark.parametrize("kind", ["pipe", "socket", "null", "zero", "folder", "dangling", "loop"])
def test_what_is_no_file_is_named_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pictures"
    small(folder / "good.png")
    path = folder / "x.png"
    irregular(path, kind)
    refused(path, r"x\.png")
    pictures = Pictures.folder(folder)
    if kind == "folder":  # a folder may be called what it likes
        assert pictures.to(CPU).names == ("good.png", "x.png/within.png")
    else:
        with pytest.raises(PictureError, match=r"x\.png"):
            _ = pictures.digest


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
    printed = capsys.readouterr().err
    assert "\\x1b[2Jnew\\nline\\udcff/\\x1b[31m\\udce9.png" in printed
    assert "\x1b" not in printed


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
        irregular(path, kind)
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
