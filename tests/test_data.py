"""Pictures of every kind come out as RGB in [0, 1]; crops are what the pictures hold."""

import importlib.util
import os
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from bench.pictures import data
from bench.pictures.data import Examples, PictureError, Pictures, photographs

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def coloured(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, pixels, **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def read(path):
    """The one picture of a file as (H, W, 3) in levels of 0 to 255."""
    ((_, batch),) = Pictures([path]).examples()
    assert batch.dtype == torch.float32
    assert batch.shape[:2] == (1, 3)
    levels = batch[0].permute(1, 2, 0) * 255
    assert torch.equal(levels.round(), levels)
    return levels.numpy().astype(np.uint8)


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
    found = moved.batch(64, generator())
    assert found.is_cuda
    assert torch.equal(found.cpu(), expected)
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved.batch(64, generator())
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_crop_of_one_pixel(tmp_path):
    assert Pictures(numbered(tmp_path), crop=1).batch(5, generator()).shape == (5, 3, 1, 1)


def test_no_crop_means_no_training(tmp_path):
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


# ------------------------------------------------------------------ kinds of pictures


@pytest.mark.parametrize("ending", ["png", "tif", "TIFF", "webp"])
def test_lossless_files_come_out_as_they_are(tmp_path, ending):
    pixels = coloured(7, 5)
    options = {"lossless": True} if ending == "webp" else {}
    assert np.array_equal(read(write(tmp_path / f"a.{ending}", pixels, **options)), pixels)


def test_a_jpeg_comes_out_as_pillow_reads_it(tmp_path):
    path = write(tmp_path / "a.jpeg", coloured(24, 16), quality=90)
    assert np.array_equal(read(path), np.asarray(Image.open(path)))


def test_a_tiny_picture(tmp_path):
    assert read(write(tmp_path / "a.png", coloured(1, 1))).shape == (1, 1, 3)


def test_grey_and_two_levels(tmp_path):
    grey = coloured(4, 6)[..., 0]
    assert np.array_equal(read(write(tmp_path / "grey.png", grey)), np.stack([grey] * 3, -1))
    bits = grey > 127
    expected = np.stack([bits * np.uint8(255)] * 3, -1)
    assert np.array_equal(read(write(tmp_path / "bits.png", bits)), expected)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, ending):
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    expected = np.round(values / 65535 * 255).astype(np.uint8)
    found = read(write(tmp_path / f"a.{ending}", values))
    assert np.array_equal(found, np.stack([expected] * 3, -1))
    assert expected[0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]


def test_sixteen_bits_in_the_other_byte_order_and_in_wide_integers(tmp_path):
    values = np.array([[0, 257, 65535]], dtype=np.uint16)
    swapped = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    assert read(write(tmp_path / "swapped.tif", swapped))[0, :, 0].tolist() == [0, 1, 255]
    assert read(write(tmp_path / "i.tif", values.astype(np.int32)))[0, :, 0].tolist() == [0, 1, 255]
    with pytest.raises(PictureError, match=r"wide\.tif.*16-bit"):
        read(write(tmp_path / "wide.tif", values.astype(np.int32) * 2))


def test_real_numbers(tmp_path):
    values = np.array([[0, 0.5, 1]], dtype=np.float32)
    assert read(write(tmp_path / "a.tif", values))[0, :, 0].tolist() == [0, 128, 255]
    for name, wrong in (("over", 2 * values), ("nan", values * np.nan)):
        with pytest.raises(PictureError, match=rf"{name}\.tif.*leave \[0, 1\]"):
            read(write(tmp_path / f"{name}.tif", wrong))


def test_transparency_is_laid_over_white(tmp_path):
    pixels = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [0, 0, 0, 51]]], dtype=np.uint8)
    for ending in ("png", "tif"):
        found = read(write(tmp_path / f"a.{ending}", pixels))
        assert found.tolist() == [[[255, 255, 255], [200, 0, 0], [204, 204, 204]]]
    grey = Image.fromarray(pixels[..., [0, 3]], "LA")
    assert read(write(tmp_path / "grey.png", grey))[0, :, 0].tolist() == [255, 200, 204]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    found = read(write(tmp_path / "palette.png", palette, transparency=0))
    assert found.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_other_colour_spaces(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8) + np.array([180, 90, 40], np.uint8)
    rgb = Image.fromarray(pixels)
    for mode, name in (("CMYK", "a.jpg"), ("CMYK", "b.tif"), ("YCbCr", "c.jpg")):
        found = read(write(tmp_path / name, rgb.convert(mode)))
        assert np.abs(found.astype(int) - pixels).max() <= 4, (mode, name)
    assert np.array_equal(read(write(tmp_path / "palette.png", rgb.quantize(4))), pixels)
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB")
    found = read(write(tmp_path / "lab.tif", lab))
    assert np.abs(found.astype(int) - pixels).max() <= 4


def test_the_cameras_orientation_is_applied(tmp_path):
    pixels = coloured(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it
    path = write(tmp_path / "a.png", pixels, exif=exif)
    assert np.array_equal(read(path), np.rot90(pixels, -1))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(coloured(5, 5, seed)) for seed in (0, 1)]
    for ending, options in (("png", {}), ("webp", {"lossless": True}), ("tif", {})):
        path = tmp_path / f"a.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(read(path), coloured(5, 5, 0))


# ------------------------------------------------------------------ what cannot be read


def test_bad_files_are_all_named(tmp_path):
    good = write(tmp_path / "good.png", coloured(64, 64))
    whole = good.read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.tif").write_bytes(b"")
    pictures = Pictures.folder(tmp_path, crop=8)
    with pytest.raises(PictureError, match="3 of 4 pictures") as caught:
        pictures.batch(1, generator())
    text = str(caught.value)
    assert "cut.png" in text
    assert "empty.tif (it is empty)" in text
    assert "text.jpg (it is no JPEG" in text
    assert "good.png" not in text
    assert text.endswith("start again")
    for index in range(7):
        (tmp_path / f"bad{index}.png").write_bytes(b"x")
    with pytest.raises(PictureError, match="and 5 more"):
        Pictures.folder(tmp_path).to(CPU)


def test_a_truncated_jpeg(tmp_path):
    path = write(tmp_path / "a.jpg", coloured(64, 64))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(PictureError, match=r"a\.jpg.*truncated"):
        Pictures([path]).to(CPU)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", coloured(40, 40))
    for limit in (1000, 500):  # Pillow warns over its limit, and refuses over twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        data._decode.cache_clear()
        with pytest.raises(PictureError, match=f"more than {limit:,} pixels"):
            Pictures([path]).to(CPU)


def test_folders_that_cannot_serve(tmp_path):
    with pytest.raises(PictureError, match="hold no picture"):
        Pictures.folder(tmp_path)
    with pytest.raises(PictureError, match="there is no folder"):
        Pictures.folder(tmp_path / "absent")
    path = write(tmp_path / "a.png", coloured(4, 4))
    with pytest.raises(PictureError, match="is a file: give the folder"):
        Pictures.folder(path)
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
        monkeypatch.setattr(data, "SPLIT_SEED", seed)
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
