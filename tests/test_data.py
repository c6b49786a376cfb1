"""Pictures as they are kept in memory: crops, digests, what is left out; tensors. What is read from
files is tested in test_decode.py and test_hostile_pictures.py.
"""

import importlib.util
import os
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from bench.pictures import data
from bench.pictures.data import Examples, PictureError, Pictures
from bench.tasks import photographs as of_skimage
from bench.tasks.photographs import photographs
from tests.picture_files import CPU, coloured, read, write


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ crops


def numbered(tmp_path):
    """Three pictures of different shapes in which every pixel says which picture and where."""
    paths = []
    for index, (height, width) in enumerate([(20, 31), (37, 18), (16, 16)]):
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([np.full_like(rows, index), rows, columns], -1).astype(np.uint8)
        paths.append(write(tmp_path / f"{index}.png", pixels))
    return paths


def test_crops_are_cut_from_the_pictures(tmp_path):
    """The start of every crop is read off its corner; the rest has to follow from it."""
    pictures = Pictures(numbered(tmp_path), crop=16).to(CPU)
    batch = pictures.batch(2000, generator())
    assert batch.shape == (2000, 3, 16, 16)
    assert batch.dtype == torch.float32
    levels = (batch * 255).round().long()
    which, rows, columns = levels.unbind(1)
    steps = columns[:, 0, 1] - columns[:, 0, 0]
    assert set(steps.tolist()) == {1, -1}  # mirrored or not
    line = torch.arange(16)
    assert torch.equal(which, which[:, :1, :1].expand_as(which))
    assert torch.equal(rows, (rows[:, :1, :1] + line[:, None]).expand_as(rows))
    across = columns[:, :1, :1] + steps[:, None, None] * line
    assert torch.equal(columns, across.expand_as(columns))

    # Uniform over pictures, places (both ends included) and mirroring.
    shares = torch.bincount(which[:, 0, 0]) / 2000
    assert (shares - 1 / 3).abs().max() < 0.05
    assert ((steps == 1).float().mean() - 0.5).abs() < 0.05
    first = which[:, 0, 0] == 0
    assert set(rows[first][:, 0, 0].tolist()) == set(range(20 - 16 + 1))
    assert set(columns[first].amin((1, 2)).tolist()) == set(range(31 - 16 + 1))
    assert rows[which[:, 0, 0] == 1].max() == 36


def test_a_batch_follows_from_the_generator(tmp_path):
    pictures = Pictures(numbered(tmp_path), crop=8)
    one, other = pictures.batch(4, generator(1)), pictures.batch(4, generator(1))
    assert torch.equal(one, other)
    assert not torch.equal(one, pictures.batch(4, generator(2)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_batch_without_waiting(tmp_path):
    pictures = Pictures(numbered(tmp_path), crop=16)
    moved = pictures.to(torch.device("cuda"))
    expected = pictures.batch(64, generator())
    batch = moved.batch(64, generator())
    assert batch.is_cuda
    assert torch.equal(batch.cpu(), expected)
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved.batch(64, generator())
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_crop_of_one_pixel_and_of_none(tmp_path):
    assert Pictures(numbered(tmp_path), crop=1).batch(5, generator()).shape == (5, 3, 1, 1)
    with pytest.raises(ValueError, match="without a crop"):
        Pictures(numbered(tmp_path)).batch(1, generator())


def test_small_pictures_are_left_out_and_named_once(tmp_path):
    paths = numbered(tmp_path)
    pictures = Pictures(paths, crop=17)
    with pytest.warns(UserWarning, match=r"1 of 3 pictures are smaller than the 17x17.*2\.png"):
        batch = pictures.batch(64, generator())
    assert set((batch[:, 0, 0, 0] * 255).round().tolist()) == {0, 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [name for name, _ in Pictures(paths, crop=17).examples()] == ["0.png", "1.png"]
    assert len(list(Pictures(paths).examples())) == 3
    with pytest.raises(PictureError, match="all 3 pictures are smaller than the 40x40"):
        Pictures(paths, crop=40).to(CPU)


def test_files_are_decoded_once(tmp_path, monkeypatch):
    paths = numbered(tmp_path)
    decoded = []
    original = data.read_picture
    monkeypatch.setattr(data, "read_picture", lambda path: decoded.append(path) or original(path))
    for crop in (0, 8, 16):
        pictures = Pictures(paths, crop).to(CPU)
        assert len(list(pictures.examples())) == 3
        if crop:
            pictures.batch(2, generator())
    assert sorted(decoded) == paths


def test_a_batch_is_quick(tmp_path):
    """Well under the 40 ms of the smallest training step, even on a busy machine."""
    pictures = Pictures(numbered(tmp_path), crop=16).to(CPU)
    draws = generator()
    pictures.batch(8, draws)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        pictures.batch(8, draws)
        times.append(time.perf_counter() - start)
    assert min(times) < 2e-3


# ------------------------------------------------------------------ what cannot be read


def test_bad_files_are_all_named(tmp_path):
    whole = write(tmp_path / "good.png", coloured(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.tif").write_bytes(b"")
    with pytest.raises(PictureError, match="3 of 4 pictures") as caught:
        Pictures.folder(tmp_path, crop=8).batch(1, generator())
    text = str(caught.value)
    for part in ("cut.png", "empty.tif (it is empty)", "text.jpg (it is no JPEG"):
        assert part in text
    assert "good.png" not in text
    assert text.endswith("start again")
    for index in range(7):
        (tmp_path / f"bad{index}.png").write_bytes(b"x")
    with pytest.raises(PictureError, match="and 5 more"):
        Pictures.folder(tmp_path).to(CPU)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", coloured(40, 40))
    for limit in (1000, 500):  # Pillow warns over its limit, and refuses over twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        data._decode.cache_clear()
        with pytest.raises(PictureError, match=f"more than {limit:,} pixels"):
            Pictures([path]).to(CPU)


def test_what_cannot_serve(tmp_path):
    path = write(tmp_path / "a.png", coloured(4, 4))
    (tmp_path / "empty").mkdir()
    for folder, reason in (
        (tmp_path / "empty", "hold no picture"),
        (tmp_path / "absent", "there is no folder"),
        (path, "is a file: give the folder"),
    ):
        with pytest.raises(PictureError, match=reason):
            Pictures.folder(folder)
    with pytest.raises(PictureError, match="cannot be read"):
        Pictures([tmp_path / "absent.png"]).to(CPU)
    with pytest.raises(PictureError, match="no picture was given"):
        Pictures([])
    with pytest.raises(ValueError, match="as many different names"):
        Pictures([path, path], names=["a", "a"])


# ------------------------------------------------------------------ folders and digests


def test_a_folder_is_read_recursively_in_order(tmp_path):
    for name in ("b/z.PNG", "b/a.jpg", "a.webp", "c/d/e.tiff"):
        write(tmp_path / name, coloured(4, 4))
    (tmp_path / "notes.txt").write_text("none of ours")
    write(tmp_path / ".hidden.png", coloured(4, 4))
    write(tmp_path / ".cache" / "f.png", coloured(4, 4))
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    names = ["a.webp", "b/a.jpg", "b/z.PNG", "c/d/e.tiff"]
    pictures = Pictures.folder(tmp_path)
    assert list(pictures.names) == names
    assert [name for name, _ in pictures.examples()] == names


def test_the_digest_is_of_names_and_content_not_of_places(tmp_path):
    one = [write(tmp_path / f"{seed}.png", coloured(4, 4, seed)) for seed in range(3)]
    digest = Pictures(one).digest
    assert digest == Pictures(one, crop=2).digest
    assert Pictures(one[::-1]).digest != digest  # the order is that of training
    for seed in range(3):
        write(tmp_path / f"x/{seed}.png", coloured(4, 4, seed))
    assert Pictures.folder(tmp_path / "x").digest == digest
    assert Pictures(one[:2]).digest != digest
    write(one[0], coloured(4, 4, 9))
    os.utime(one[0], ns=(1, 1))
    assert Pictures(one).digest != digest


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "a.png", coloured(4, 4, 0))
    assert np.array_equal(read(path), coloured(4, 4, 0))
    write(path, coloured(4, 4, 1))
    os.utime(path, ns=(1, 1))
    assert np.array_equal(read(path), coloured(4, 4, 1))


# ------------------------------------------------------------------ the default photographs


def test_the_photographs_are_split_by_scene():
    train, test = photographs("train", 64), photographs("test")
    assert test.names == ("astronaut", "rocket")
    assert not set(train.names) & set(test.names)
    assert {"motorcycle_left", "motorcycle_right"} < set(train.names)
    assert len(train.names) == 4
    assert train.digest != test.digest
    shapes = {name: tuple(batch.shape) for name, batch in test.examples()}
    assert shapes == {"astronaut": (1, 3, 512, 512), "rocket": (1, 3, 427, 640)}
    assert train.batch(2, generator()).shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match="--validation-data DIR"):
        photographs("validation")


def test_whatever_is_drawn_keeps_the_motorcycle_for_training(monkeypatch):
    drawn = set()
    for seed in range(20):
        monkeypatch.setattr(of_skimage, "SPLIT_SEED", seed)
        test = photographs("test").names
        assert test[0] == "astronaut"
        assert "motorcycle_left" in photographs("train").names
        drawn.add(test[1])
    assert drawn == {"chelsea", "coffee", "rocket"}


def test_a_scikit_image_without_the_photographs(monkeypatch, tmp_path):
    (tmp_path / "skimage").mkdir()
    (tmp_path / "skimage" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(PictureError, match=r"no astronaut\.png.*--train-data"):
        photographs("test")


# ------------------------------------------------------------------ tensors


def test_examples():
    rows = torch.arange(10, dtype=torch.float64).view(5, 2)
    examples = Examples(rows, "seed 0").to(CPU)
    assert examples.digest == "seed 0"
    batch = examples.batch(300, generator())
    assert batch.dtype == torch.float32
    assert batch.shape == (300, 2)
    assert set(map(tuple, batch.tolist())) == set(map(tuple, rows.tolist()))
    assert torch.equal(batch, examples.batch(300, generator()))
    named = dict(Examples(rows, "", names="abcde").examples())
    assert torch.equal(named["b"], torch.tensor([[2.0, 3.0]]))
    assert [name for name, _ in examples.examples()] == ["0", "1", "2", "3", "4"]


def test_examples_in_bytes_come_out_in_the_unit_range():
    examples = Examples(torch.tensor([[0], [51], [255]], dtype=torch.uint8), "")
    values = set(examples.batch(50, generator()).flatten().tolist())
    assert values == {0.0, torch.tensor(51 / 255).item(), 1.0}
    assert [batch.item() for _, batch in examples.examples()] == pytest.approx([0, 0.2, 1])


def test_examples_need_names_that_differ():
    for rows, names in ((3, "aab"), (3, "ab"), (0, "")):
        with pytest.raises(ValueError, match="different names"):
            Examples(torch.zeros(rows, 1), "", names=names)
