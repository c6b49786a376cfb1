"""Archives, and files in the cache, that somebody else has made."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench.pictures import archives, downloads
from tests.hostile import payloads


@pytest.mark.parametrize("name", sorted(downloads.ARTEFACTS))
def test_a_payload_in_the_cache_is_not_run(name: str, tmp_path: Path, monkeypatch) -> None:
    mark, kept = tmp_path / "ran", downloads.ARTEFACTS[name]
    monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setitem(
        downloads.ARTEFACTS, name, downloads.Artefact(**{**vars(kept), "sources": ()})
    )
    path = tmp_path / "cache" / kept.file
    path.parent.mkdir()
    for data in payloads(mark):
        path.write_bytes(data)
        with pytest.raises(downloads.Unavailable):
            downloads.get(name)
    downloads._failed.clear()
    assert not mark.exists()


def test_a_pickle_that_asks_for_gigabytes_is_refused() -> None:
    data = bytearray(pickle.dumps([1, 2], protocol=2))
    place = data.index(b"q\0")  # BINPUT 0
    data[place : place + 2] = b"r" + (2**30).to_bytes(4, "little")  # LONG_BINPUT
    assert pickle.loads(pickle.dumps([1, 2], protocol=2)) == [1, 2]
    with pytest.raises(pickle.UnpicklingError, match="a table of 1,073,741,824 entries"):
        archives.arrays_only(bytes(data))
    for cut in range(len(data)):
        with pytest.raises(pickle.UnpicklingError):
            archives.arrays_only(bytes(data[:cut]))


# archives


def both_kinds(
    folder: Path, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE
) -> tuple[Path, Path]:
    """One of either kind, in which something lies beside what is wanted; any special file is a link
    in a zip."""
    paths = folder / "a.tgz", folder / "a.zip"
    with tarfile.open(paths[0], "w:gz") as tar, zipfile.ZipFile(paths[1], "w", 8) as archive:
        entry, info = tarfile.TarInfo(name), zipfile.ZipInfo(name)
        entry.type, entry.size, entry.linkname = kind, len(data), "/etc/passwd"
        info.external_attr = 0 if kind == tarfile.REGTYPE else 0o120777 << 16
        info.compress_type = 8
        tar.addfile(tarfile.TarInfo("package/wanted"))
        tar.addfile(entry, io.BytesIO(data))
        archive.writestr("package/wanted", b"")
        archive.writestr(info, data)
    return paths


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "C:\\x", "c:/x", "..\\x", "\\\\host\\x", "a/b/../../../x"],
)
def test_members_outside_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    for path in both_kinds(tmp_path, name):
        with pytest.raises(ValueError, match="outside its folder"):
            archives.member(path, "package/wanted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "a.zip"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("wanted", ["package/wanted", "package/x"])
def test_links_and_devices_in_an_archive_are_refused(
    tmp_path: Path, kind: bytes, wanted: str
) -> None:
    for path in both_kinds(tmp_path, "package/x", kind=kind):
        with pytest.raises(ValueError, match="a link or a device"):
            archives.member(path, wanted)


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBER_BYTES", 1000)
    for path in both_kinds(tmp_path, "x", bytes(1000)):
        assert len(archives.member(path, "x")) == 1000
    for path in both_kinds(tmp_path, "x", bytes(1001)):
        with pytest.raises(ValueError, match="more than 1,000 bytes"):
            archives.member(path, "x")
