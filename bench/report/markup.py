"""HTML that no result can break: every text is escaped unless it is markup already.

tag("p", "a < b", tag("b", name), class_="fine")        <p class="fine">a &lt; b<b>…</b></p>
listing(sheet, "Cost")                                  a table that sorts and filters
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable

from bench.report.tables import Sheet
from bench.report.text import NOTHING

# Shown as marks, whatever follows them in the cell.
WORDS = {"better", "equal", "worse", "undecided", "mixed", "failed", "diverged"}
FEW = 6  # rows that need no filter
_NUMBER = re.compile(r"([+−]?\d+(?:\.\d+)?(?:e[+−-]?\d+)?)(?: ([kMGTP])|[^\w.]|$)")
_POWERS = {"k": "e3", "M": "e6", "G": "e9", "T": "e12", "P": "e15"}


class Html(str):
    """Markup; any other text is escaped on its way into `tag`."""


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element. An attribute that is None is left out; `class_` is `class` and `aria_label` is
    `aria-label`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = joined(c if isinstance(c, Html) else Html(html.escape(str(c))) for c in content)
    return Html(f"<{name}{given}>{inside}" + ("" if name in ("img", "input") else f"</{name}>"))


def joined(parts: Iterable[Html]) -> Html:
    return Html("".join(parts))


def embedded(content: object) -> Html:
    """JSON that no text in it can leave: without `<` there is neither an end tag nor a comment.

    ValueError for NaN and infinity, which JSON lacks.
    """
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    return Html(f'<script type="application/json">{text}</script>')


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def value_of(text: str) -> float | None:
    """The number that a cell begins with, as `bench/report/text.py` writes it: `−3.1 [−4, −2]`,
    `0.20×`, `34.2 TFLOP`; None where it begins with none."""
    found = _NUMBER.match(text)
    if found is None:
        return None
    return float(found[1].replace("−", "-") + _POWERS.get(found[2], ""))


def listing(sheet: Sheet, about: str) -> Html:
    """A table that the page's script sorts by any column and, where it is long, filters.

    A name that stands once for the rows below it is repeated, so that rows can move. A column is
    one of numbers if all its cells are numbers, verdicts or empty.
    """
    rows: list[list[str]] = []
    for first, *others in sheet.rows:
        rows.append([first or rows[-1][0], *others])
    numeric = [False] + [
        all(value_of(text) is not None or text in {NOTHING, "ref.", ""} | WORDS for text in column)
        and any(value_of(text) is not None for text in column)
        for column in list(zip(*rows, strict=True))[1:] or [()] * (len(sheet.head) - 1)
    ]
    kinds = ["n" if numbers else None for numbers in numeric]

    def cell(row: int, place: int) -> Html:
        text = rows[row][place]
        if place == 0:
            return tag("th", text, scope="row")
        word = text.split(" ")[0]
        mark = tag("span", text, class_=f"v {word}") if word in WORDS else text
        shown = tag("b", mark) if (row, place) in sheet.best else mark
        value = value_of(text) if numeric[place] else None
        known = None if value is None else f"{value:.12g}"
        return tag("td", shown, class_=kinds[place], data_value=known)

    heads = (
        tag("th", tag("button", text, type="button"), scope="col", class_=kind)
        for text, kind in zip(sheet.head, kinds, strict=True)
    )
    body = (
        tag("tr", *(cell(row, place) for place in range(len(kinds)))) for row in range(len(rows))
    )
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body))
    box = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=about)
    if len(rows) <= FEW:
        return tag("div", box, class_="listing")
    field = tag("label", "Filter rows ", tag("input", type="search", autocomplete="off"))
    count = tag("output", f"{len(rows)} rows")
    return tag("div", tag("div", field, count, class_="tools"), box, class_="listing")
