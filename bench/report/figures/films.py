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
from typing import NamedTuple, TypeVar

import matplotlib
import pandas as pd
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from bench.report.load import AxisStyle, Run
from bench.report.pictures import opened, sample_of
from bench.report.text import one_line

Item = TypeVar("Item")

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


class Sheet:
    """Paper to put pictures and words on."""

    def __init__(self, width: int, height: int) -> None:
        self.picture = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.picture)
        self.paste = self.picture.paste

    def write(self, x: float, y: float, text: str, size: int = 13, anchor: str = "mm") -> None:
        self.draw.text((x, y), text, INK, _font(size), anchor=anchor)

    def png(self) -> bytes:
        data = io.BytesIO()
        self.picture.save(data, "PNG")
        return data.getvalue()


def samples(run: Run, methods: Sequence[str]) -> bytes | None:
    """A PNG of what the models make of the first test example, the original on the left; None
    where the task shows nothing.

    methods: in the order of importance; at most `SHEET` are shown, fewer where there are several
    lines of settings. One axis: a column per setting, at most nine. Several axes around a centre:
    per axis its low end, the centre and its high end, two axes a line.
    """
    at = run.measured[run.measured["seed"] == run.seeds[0]].set_index(["method", "setting"])["path"]
    pictures = {key: sample for key, path in at.items() if (sample := sample_of(path)) is not None}
    lines, known = _lines(run), {method for method, _ in pictures}
    methods = [m for m in methods if m in known][: {1: SHEET, 2: 3}.get(len(lines), 2)]
    if not methods:
        return None
    labels, symbol = run.labels(), one_line(run.axes[0].symbol)
    first = int(run.original is not None)
    columns = max(map(len, lines)) + first
    side = min(PATCH, (WIDTH - MARGIN) // columns - GAP)
    cells = {key: shown(path, side) for key, path in pictures.items() if key[0] in methods}
    tall = max(picture.height for picture in cells.values()) + GAP
    line_height, foot = HEAD + len(methods) * tall, HEAD if run.sample_line else 0
    sheet = Sheet(MARGIN + columns * (side + GAP), len(lines) * line_height + foot)
    for top, line in zip(itertools.count(0, line_height), lines):
        for column, setting in enumerate(line, first):
            left, label = MARGIN + column * (side + GAP), labels[setting]
            head = label if len(run.axes) > 1 else f"{symbol} = {label}"
            sheet.write(left + side / 2, top + HEAD / 2, head)
            for row, method in enumerate(methods):
                if (method, setting) in cells:
                    sheet.paste(cells[method, setting], (left, top + HEAD + row * tall))
        for row, method in enumerate(methods):
            sheet.paste(_upright(run.label(method), tall), (0, top + HEAD + row * tall))
    if run.original is not None:
        sheet.paste(shown(run.original, side), (MARGIN, HEAD))
        sheet.write(MARGIN + side / 2, HEAD / 2, "original")
    width, height = sheet.picture.size
    sheet.write(width / 2, height - foot / 2, one_line(run.sample_line))
    return sheet.png()


def _lines(run: Run) -> list[list[str]]:
    """The settings of each line of a sample sheet."""
    if run.centre is None:
        return [_spread(run.settings)]
    blocks = []
    for axis in range(len(run.axes)):
        still = [value for i, value in enumerate(run.centre) if i != axis]
        rest = {s: [v for i, v in enumerate(run.values(s)) if i != axis] for s in run.settings}
        block = [setting for setting in run.settings if rest[setting] == still]
        if len(block) > 1:
            blocks.append(sorted(block, key=run.values))
    return [list(itertools.chain(*blocks[i : i + 2])) for i in range(0, len(blocks), 2)]


def _spread(items: Sequence[Item]) -> list[Item]:
    """At most `STRIP` of them, both ends among them."""
    last, count = len(items) - 1, min(STRIP, len(items))
    return [items[round(i * last / max(1, count - 1))] for i in range(count)]


def sweeps(run: Run, method: str) -> dict[str, dict[str, bytes]]:
    """Per coefficient, by file name without ending: {"gif": bytes, "png": bytes}; none where fewer
    than three pictures lie on its line."""
    drawn, title = {}, f"{run.label(method)}, one network"
    for place, axis in enumerate(run.axes):
        frames = along_axis(run, method, place)
        if len(frames) > 2:
            name = re.sub(r"[^A-Za-z0-9]+", "_", axis.name).strip("_") or str(place)
            films = {"gif": animation(frames, axis, title), "png": strip(frames, axis, title)}
            drawn[f"sweep_{name}"] = films
    return drawn


def along_axis(run: Run, method: str, place: int) -> list[Frame]:
    """The samples along axis number `place`, in its order, the other coefficients at the middle of
    their compared values; of the first seed."""
    columns = [sorted(set(column)) for column in zip(*map(run.values, run.settings), strict=True)]
    middles = [column[len(column) // 2] for column in columns]
    rows = pd.concat([run.measured, run.swept])
    rows = rows[(rows["method"] == method) & (rows["seed"] == run.seeds[0])]
    axis, frames = run.axes[place], []
    for setting, record in zip(rows["setting"], rows["path"], strict=True):
        values, path = run.values(setting), sample_of(record)
        rest = [a == b for i, (a, b) in enumerate(zip(values, middles, strict=True)) if i != place]
        if all(rest) and path is not None:
            value = values[place]
            frames.append(Frame(value, not axis.low <= value <= axis.high, path))
    return sorted(frames)


def shown(path: Path, width: int) -> Image.Image:
    """A picture file at most `width` pixels wide: of a photograph the middle, at the pixels' own
    size; a smaller picture whole, enlarged by whole pixels or shrunk."""
    picture = opened(path)
    if max(picture.size) > PATCH:
        left, top = (max(0, (size - width) // 2) for size in picture.size)
        right, bottom = min(picture.width, left + width), min(picture.height, top + width)
        return picture.crop((left, top, right, bottom))
    if factor := width // picture.width:
        return ImageOps.scale(picture, factor, Image.Resampling.NEAREST)
    return ImageOps.scale(picture, width / picture.width, Image.Resampling.LANCZOS)


def animation(frames: Sequence[Frame], axis: AxisStyle, title: str) -> bytes:
    """A GIF that runs to the end and back: the picture, its coefficient, and a knob on its range.

    Where it would be larger than `LARGEST`, it runs forward only, and then has fewer colours.
    """
    slides = [_slide(frames, place, axis, title) for place in range(len(frames))]
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


def strip(frames: Sequence[Frame], axis: AxisStyle, title: str) -> bytes:
    """A PNG of at most `STRIP` of the pictures side by side, both ends among them."""
    kept, foot = _spread(frames), 24
    pictures = [shown(frame.path, 160) for frame in kept]
    side, height = pictures[0].width, max(picture.height for picture in pictures)
    sheet = Sheet(len(kept) * (side + GAP) - GAP, HEAD + height + foot)
    note = " († outside the range trained for)" if any(frame.outside for frame in kept) else ""
    sheet.write(2, HEAD / 2, f"{title}{note}", anchor="lm")
    for left, frame, picture in zip(itertools.count(0, side + GAP), kept, pictures):
        sheet.paste(picture, (left, HEAD))
        text = f"{one_line(axis.symbol)} = {frame.value:g}{' †' if frame.outside else ''}"
        sheet.write(left + side / 2, HEAD + height + foot / 2, text, 14)
    return sheet.png()


def _slide(frames: Sequence[Frame], place: int, axis: AxisStyle, title: str) -> Image.Image:
    """A sample with its coefficient in words and as a knob on a logarithmic track; the track is
    dark over the range trained for and has a notch per picture."""
    frame, picture = frames[place], shown(frames[place].path, PATCH)
    width, height = picture.size
    slide = Sheet(width, height + 70)
    slide.paste(picture, (0, 0))
    slide.write(width / 2, height + 15, f"{one_line(axis.symbol)} = {frame.value:g}", 17)
    note = "outside the range trained for" if frame.outside else title
    slide.write(width / 2, height + 58, note, 11)
    edge, track = 14, height + 38
    first, last = (math.log(frames[i].value) for i in (0, -1))

    def at(value: float) -> float:
        return edge + (width - 2 * edge) * (math.log(value) - first) / (last - first)

    slide.draw.line((edge, track, width - edge, track), FAINT, 2)
    low, high = (min(max(at(end), edge), width - edge) for end in (axis.low, axis.high))
    slide.draw.line((low, track, high, track), INK, 3)
    for other in frames:
        x = at(other.value)
        slide.draw.line((x, track - 5, x, track + 5), FAINT if other.outside else INK, 1)
    x = at(frame.value)
    knob = (x - 8, track - 8, x + 8, track + 8)
    slide.draw.ellipse(knob, FAINT if frame.outside else KNOB, KNOB, 3)
    return slide.picture


def _upright(text: str, length: int) -> Image.Image:
    """A name written from bottom to top, in the margin of a row."""
    band = Sheet(length, MARGIN)
    fitting = (size for size in range(13, 7, -1) if _font(size).getlength(text) <= length - 4)
    band.write(length / 2, MARGIN / 2, text, next(fitting, 7))
    return band.picture.transpose(Image.Transpose.ROTATE_90)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures, which comes with matplotlib."""
    return ImageFont.truetype(matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf", size)
