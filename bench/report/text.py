"""How a report writes names and numbers, and tables that no record can break."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Container, Iterable, Sequence

from bench.report.load import MeasureStyle

NOTHING = "—"
_GREEK = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
_GREEK += ["lambda", "mu", "nu", "xi", "", "pi", "rho", "", "sigma", "tau", "upsilon", "phi", "chi"]
_GREEK += ["psi", "omega"]
_IN_MATHS = {"Δ": "Delta", "Σ": "Sigma", "Λ": "Lambda", "×": "times", "±": "pm", "·": "cdot"}
_IN_MATHS |= {"↑": "uparrow", "↓": "downarrow", "→": "to", "∞": "infty"}
_IN_MATHS |= {chr(0x3B1 + place): name for place, name in enumerate(_GREEK) if name}
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{c: rf"$\{name}$" for c, name in _IN_MATHS.items()},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "²": "$^2$", "³": "$^3$", "\u00a0": "~"},
    **{"[": "{[}", "*": "{*}", "—": "--", "–": "--", "†": r"\dag{}", "‡": r"\ddag{}"},
    **{"ß": r"\ss{}", "§": r"\S{}", "°": r"$^\circ$"},
}
_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]|~$#"} | {"<": "&lt;", "&": "&amp;"})


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


def estimate(
    value: float, ends: Sequence[float] = (), digits: int = 3, *, sign: bool = False
) -> str:
    """`+3.1 [+2.0, +4.4]`, without its interval where an end is missing; three significant digits
    of the largest number are enough."""
    shown = [value, *ends] if all(map(math.isfinite, ends)) else [value]
    size = max(map(abs, shown))
    if 10 <= size < math.inf:
        digits = min(digits, max(0, 2 - math.floor(math.log10(size))))
    first, *rest = (number(each, digits, sign=sign) for each in shown)
    return f"{first} [{', '.join(rest)}]" if rest else first


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


def escape(text: object) -> str:
    """Text that Markdown, tables included, shows as it is."""
    return one_line(str(text)).translate(_MARKDOWN)


def markdown_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    bold: Container[tuple[int, int]] = (),
) -> str:
    """A table of escaped cells, aligned in the source too; the first `left` columns lean left, and
    cells at (row, column) in `bold` are so."""
    cells = [[escape(cell) for cell in head]]
    for r, row in enumerate(rows):
        texts = [escape(cell) for cell in row]
        cells.append([f"**{text}**" if (r, c) in bold else text for c, text in enumerate(texts)])
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |\n"

    return "".join(map(line, [cells[0], rule, *cells[1:]]))


def latex(text: str) -> str:
    """Text that LaTeX sets as it is; what its standard fonts lack becomes its plain letters or a
    question mark."""

    def known(character: str) -> str:
        if character in _LATEX or character.isascii():
            return _LATEX.get(character, character)
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        return "".join(_LATEX.get(c, c) for c in plain) or "?"

    return "".join(map(known, one_line(text)))


def latex_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    bold: Container[tuple[int, int]] = (),
    groups: Sequence[int] = (),
) -> str:
    """A `tabular` with booktabs' rules and a gap between groups of rows."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cells) + r" \\"

    ends = {sum(groups[: i + 1]) for i in range(len(groups) - 1)}
    columns = "l" * left + "r" * (len(head) - left)
    lines = ["% \\usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [line(map(latex, head)), r"\midrule"]
    for r, row in enumerate(rows):
        cells = map(latex, row)
        lines.append(line(rf"\textbf{{{t}}}" if (r, c) in bold else t for c, t in enumerate(cells)))
        if r + 1 in ends:
            lines.append(r"\addlinespace")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
