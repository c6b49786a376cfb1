"""The pictures of a run: what methods make of a test example, and one network's answers moving.

    samples(run, ["fixed_grid", "yoto"])    a sheet: a row per method, a column per setting
    sweeps(run, "yoto")                     {"sweep_distortion": {"gif": ..., "png": ...}}

A sweep has the samples of one conditioned network at the compared settings, at those between them
and at those beyond the range trained for, which are marked as such: an animation per coefficient,
and the same as a strip.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pandas as pd
from PIL import Image, ImageColor, ImageDraw, ImageFont

from bench.report.load import AxisStyle, Run
from bench.report.pictures import opened, sample_of
from bench.report.text import method_label, one_line

PATCH = 256  # pixels: of what is larger, the middle is shown
WIDTH, MARGIN, HEAD, GAP = 1100, 22, 22, 5  # pixels of a sample sheet
SHEET = 5  # methods on it
LARGEST = 1_400_000  # bytes of an animation
STRIP = 9  # pictures on a strip
SECONDS = 0.6  # per picture
INK, FAINT, PAPER, KNOB = "#1a1a1a", "#b0b0b0", "#ffffff", "#0173b2"


class Frame(NamedTuple):
    """A sample: the coefficient's value, whether it lies outside its range, the picture's file."""

    value: float
    outside: bool
    path: Path


def samples(run: Run, methods: Sequence[str]) -> bytes | None:
    """A PNG of what the models make of the first test example, the original on the left; None
    where the task shows nothing.

    methods: in the order of importance; at most `SHEET` are shown, fewer where there are several
    lines of settings. One axis: a column per setting, at most nine. Several axes around a centre:
    per axis its low end, the centre and its high end, two axes a line.
    """
    entries = run.measured[run.measured["seed"] == run.seeds[0]]
    pictures = {
        (row["method"], row["setting"]): picture
        for row in entries.to_dict("records")
        if (picture := sample_of(row["path"])) is not None
    }
    lines = _lines(run)
    methods = [method for method in methods if any(method == other for other, _ in pictures)]
    methods = methods[: {1: SHEET, 2: 3}.get(len(lines), 2)]
    if not methods:
        return None
    labels, symbol = run.labels(), one_line(run.axes[0].symbol)
    columns = max(map(len, lines)) + (run.original is not None)
    side = min(PATCH, (WIDTH - MARGIN) // columns - GAP)
    cells = {key: shown(path, side) for key, path in pictures.items() if key[0] in methods}
    tall = max(picture.height for picture in cells.values()) + GAP
    line_height = HEAD + len(methods) * tall
    foot = HEAD if run.sample_line else 0
    size = (MARGIN + columns * (side + GAP), len(lines) * line_height + foot)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, line in enumerate(lines):
        top = place * line_height
        named = [(labels[s] if len(run.axes) > 1 else f"{symbol} = {labels[s]}", s) for s in line]
        for column, (head, setting) in enumerate(named, int(run.original is not None)):
            left = MARGIN + column * (side + GAP)
            draw.text((left + side / 2, top + HEAD / 2), head, INK, _font(13), anchor="mm")
            for row, method in enumerate(methods):
                if (method, setting) in cells:
                    sheet.paste(cells[method, setting], (left, top + HEAD + row * tall))
        for row, method in enumerate(methods):
            name = _upright(method_label(method), tall)
            sheet.paste(name, (0, top + HEAD + row * tall))
    if run.original is not None:
        sheet.paste(shown(run.original, side), (MARGIN, HEAD))
        draw.text((MARGIN + side / 2, HEAD / 2), "original", INK, _font(13), anchor="mm")
    said = one_line(run.sample_line)
    draw.text((size[0] / 2, size[1] - foot / 2), said, INK, _font(13), anchor="mm")
    return _png(sheet)


def _lines(run: Run) -> list[list[str]]:
    """The settings of each line of a sample sheet."""
    if run.centre is None:
        last, count = len(run.settings) - 1, min(STRIP, len(run.settings))
        return [[run.settings[round(i * last / max(1, count - 1))] for i in range(count)]]
    blocks = []
    for axis in range(len(run.axes)):
        rest = {s: [v for i, v in enumerate(run.values(s)) if i != axis] for s in run.settings}
        still = [value for i, value in enumerate(run.centre) if i != axis]
        block = [setting for setting in run.settings if rest[setting] == still]
        if len(block) > 1:
            blocks.append(sorted(block, key=run.values))
    return [list(itertools.chain(*blocks[i : i + 2])) for i in range(0, len(blocks), 2)]


def sweeps(run: Run, method: str) -> dict[str, dict[str, bytes]]:
    """Per coefficient, by file name without ending: {"gif": bytes, "png": bytes}; none where fewer
    than three pictures lie on its line."""
    drawn = {}
    for place, axis in enumerate(run.axes):
        frames = along_axis(run, method, place)
        if len(frames) > 2:
            name = re.sub(r"[^A-Za-z0-9]+", "_", axis.name).strip("_") or str(place)
            said = f"{method_label(method)}, one network"
            drawn[f"sweep_{name}"] = {
                "gif": animation(frames, axis, said),
                "png": strip(frames, axis, said),
            }
    return drawn


def along_axis(run: Run, method: str, place: int) -> list[Frame]:
    """The samples along axis number `place`, in its order, the other coefficients at the middle of
    their compared values; of the first seed."""
    columns = [sorted(set(column)) for column in zip(*map(run.values, run.settings), strict=True)]
    middles = [column[len(column) // 2] for column in columns]
    rows = pd.concat([run.measured, run.swept])
    rows = rows[(rows["method"] == method) & (rows["seed"] == run.seeds[0])]
    found = []
    for row in rows.to_dict("records"):
        values, path = run.values(row["setting"]), sample_of(row["path"])
        rest = [a == b for i, (a, b) in enumerate(zip(values, middles, strict=True)) if i != place]
        if all(rest) and path is not None:
            axis = run.axes[place]
            outside = not axis.low <= values[place] <= axis.high
            found.append(Frame(value=values[place], outside=outside, path=path))
    return sorted(found)


def shown(path: Path, width: int) -> Image.Image:
    """A picture file at most `width` pixels wide: of a photograph the middle, at the pixels' own
    size; a smaller picture whole, enlarged by whole pixels or shrunk."""
    picture = opened(path)
    if max(picture.size) > PATCH:
        left, top = (max(0, (size - width) // 2) for size in picture.size)
        right, bottom = (
            min(size, before + width)
            for size, before in zip(picture.size, (left, top), strict=True)
        )
        return picture.crop((left, top, right, bottom))
    if picture.width <= width:
        factor = width // picture.width
        size = (factor * picture.width, factor * picture.height)
        return picture.resize(size, Image.Resampling.NEAREST)
    size = (width, round(picture.height * width / picture.width))
    return picture.resize(size, Image.Resampling.LANCZOS)


def animation(frames: list[Frame], axis: AxisStyle, said: str) -> bytes:
    """A GIF that runs to the end and back: the picture, its coefficient, and a knob on its range.

    Where it would be larger than `LARGEST`, it runs forward only, and then has fewer colours.
    """
    slides = [_slide(frames, place, axis, said) for place in range(len(frames))]
    width, height = slides[0].width // 2, slides[0].height // 2
    every = Image.new("RGB", (width, height * len(slides)))  # one palette for all: nothing flickers
    for place, slide in enumerate(slides):
        small = slide.resize((width, height), Image.Resampling.NEAREST)
        every.paste(small, (0, height * place))
    for colours, back in ((256, True), (256, False), (64, False), (16, False)):
        data = io.BytesIO()
        palette = every.quantize(colours - 1)
        palette.putpalette([*(palette.getpalette() or []), *ImageColor.getrgb(PAPER)])
        few = [slide.quantize(palette=palette, dither=Image.Dither.NONE) for slide in slides]
        film = few + few[-2:0:-1] if back else few
        film[0].save(
            data, "GIF", save_all=True, append_images=film[1:], loop=0,
            duration=round(1000 * SECONDS), disposal=1,
        )  # fmt: skip
        if data.tell() <= LARGEST:
            break
    return data.getvalue()


def strip(frames: list[Frame], axis: AxisStyle, said: str) -> bytes:
    """A PNG of at most `STRIP` of the pictures side by side, both ends among them."""
    last, count = len(frames) - 1, min(STRIP, len(frames))
    kept = [frames[round(i * last / (count - 1))] for i in range(count)]
    pictures = [shown(frame.path, 160) for frame in kept]
    side, foot = pictures[0].width, 24
    height = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (count * (side + GAP) - GAP, HEAD + height + foot), PAPER)
    draw = ImageDraw.Draw(sheet)
    note = " († outside the range trained for)" if any(frame.outside for frame in kept) else ""
    draw.text((2, HEAD / 2), f"{said}{note}", INK, _font(13), anchor="lm")
    for place, (frame, picture) in enumerate(zip(kept, pictures, strict=True)):
        left = place * (side + GAP)
        sheet.paste(picture, (left, HEAD))
        text = f"{one_line(axis.symbol)} = {frame.value:g}{' †' if frame.outside else ''}"
        draw.text((left + side / 2, HEAD + height + foot / 2), text, INK, _font(14), anchor="mm")
    return _png(sheet)


def _slide(frames: list[Frame], place: int, axis: AxisStyle, said: str) -> Image.Image:
    """A sample with its coefficient in words and as a knob on a logarithmic track; the track is
    dark over the range trained for and has a notch per picture."""
    frame, picture = frames[place], shown(frames[place].path, PATCH)
    width, height = picture.size
    slide = Image.new("RGB", (width, height + 70), PAPER)
    slide.paste(picture, (0, 0))
    draw = ImageDraw.Draw(slide)
    value = f"{one_line(axis.symbol)} = {frame.value:g}"
    draw.text((width / 2, height + 15), value, INK, _font(17), anchor="mm")
    note = "outside the range trained for" if frame.outside else said
    draw.text((width / 2, height + 58), note, INK, _font(11), anchor="mm")

    edge, track = 14, height + 38
    first, last = (math.log(frames[i].value) for i in (0, -1))

    def at(value: float) -> float:
        return edge + (width - 2 * edge) * (math.log(value) - first) / (last - first)

    draw.line((edge, track, width - edge, track), FAINT, 2)
    inside = [min(max(at(end), edge), width - edge) for end in (axis.low, axis.high)]
    draw.line((inside[0], track, inside[1], track), INK, 3)
    for other in frames:
        x = at(other.value)
        draw.line((x, track - 5, x, track + 5), FAINT if other.outside else INK, 1)
    x = at(frame.value)
    draw.ellipse((x - 8, track - 8, x + 8, track + 8), FAINT if frame.outside else KNOB, KNOB, 3)
    return slide


def _upright(text: str, length: int) -> Image.Image:
    """A name written from bottom to top, in the margin of a row."""
    band = Image.new("RGB", (length, MARGIN), PAPER)
    size = 13
    while size > 7 and _font(size).getlength(text) > length - 4:
        size -= 1
    ImageDraw.Draw(band).text((length / 2, MARGIN / 2), text, INK, _font(size), anchor="mm")
    return band.transpose(Image.Transpose.ROTATE_90)


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures, which comes with matplotlib."""
    return ImageFont.truetype(matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf", size)
