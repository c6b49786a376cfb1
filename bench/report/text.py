"""How a report writes names and numbers, and Markdown tables that no record can break."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.report.load import MeasureStyle

NOTHING = "—"
_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]|~$#"} | {"<": "&lt;", "&": "&amp;"})


def method_label(name: str) -> str:
    """`fixed_grid` to `fixed grid`, `yoto` to `YOTO`."""
    return "YOTO" if name == "yoto" else one_line(name.replace("_", " "))


def measure_label(style: MeasureStyle, *, arrow: bool = True) -> str:
    """`PSNR (dB) ↑`: label, unit, and the arrow of the better direction."""
    label = one_line(style.label) + (f" ({one_line(style.unit)})" if style.unit else "")
    arrows = {"lower": "\u00a0↓", "higher": "\u00a0↑"} if arrow else {}
    return label + arrows.get(style.better, "")  # no line breaks before the arrow


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Fixed decimals with a true minus; a dash for what is not there."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")  # no signed zero
    return text.replace("-", "−")


def short(value: float | None, unit: str = "") -> str:
    """Three significant digits with an SI prefix: 3.42e13, "FLOP" to `34.2 TFLOP`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9995 * 10**power:
            return f"{value / 10**power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def ratio(value: float | None) -> str:
    """`0.213` to `0.21×`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.2g}×" if 0 < value < 0.0995 else f"{value:.{2 if value < 99.95 else 0}f}×"


def one_line(text: str) -> str:
    """Control characters and line breaks become blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def escape(text: str) -> str:
    """Text that Markdown, tables included, shows as it is."""
    return one_line(text).translate(_MARKDOWN)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of escaped cells, aligned in the source too; the first `left` columns lean left."""
    cells = [[escape(cell) for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])]) + "\n"
