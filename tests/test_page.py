"""The page in a real browser: the slider and the tables.

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`); the tests that
drive them are skipped where there are none.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import (
    END,
    ENTER,
    LEFT,
    RIGHT,
    Browser,
    browser,
    browses,
    codec,
    compression,
    failing,
    pages,
    plain,
)
from PIL import Image
from synthetic import Noise, style_of

from bench.space import Setting

__all__ = ["browser", "compression", "failing", "pages"]

STYLE = [
    {"name": "content", "low": 0.1, "high": 10.0, "symbol": "c"},
    {"name": "style", "low": 0.1, "high": 10.0, "symbol": "s"},
]


def styled(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
    content, style = (value**-0.5 * math.exp(0.1 * hard) for value in setting)
    loss = setting[0] * content + setting[1] * style
    return {"content": content, "style": style, "loss": loss * (1.1 - 0.1 * ("fixed" in method))}


def shown(browser: Browser) -> dict[str, Any]:
    """What the first knob of the page says."""
    script = """
        const knob = document.querySelector(".knob");
        const rows = [...knob.querySelectorAll(".numbers tbody tr")];
        const spaced = (text) => text.replaceAll("\u00a0", " ");
        const text = (selector) => spaced(knob.querySelector(selector).innerText);
        const source = (selector) => {
          const image = knob.querySelector(selector + " img");
          return image.hidden ? null : image.src;
        };
        return {
          at: text(".value"), place: text(".place"), basis: text(".basis"),
          valuetext: knob.querySelector("input").getAttribute("aria-valuetext"),
          numbers: Object.fromEntries(rows.map((row) => {
            const [name, ...rest] = [...row.cells].map((cell) => spaced(cell.innerText));
            return [name, rest];
          })),
          own: source(".own"), beside: source(".beside"), original: source(".original"),
          captions: text(".picture.own figcaption") + " | " + text(".picture.beside figcaption"),
          chart: knob.querySelector(".chart svg").innerHTML,
        };
    """
    return dict(browser.run(script))


def colour(source: str) -> tuple[int, ...]:
    data = base64.b64decode(source.split(",", 1)[1])
    return tuple(Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0)))  # type: ignore[arg-type]


def wanted_colour(method: str, setting: Setting) -> tuple[int, ...]:
    return tuple(plain(method, setting).getpixel((0, 0)))  # type: ignore[arg-type]


def mean(method: str, setting: Setting, measure: str) -> float:
    hard = [np.random.default_rng(i).standard_normal() for i in range(5)]
    return float(np.mean([codec(method, setting, each, lambda: 0.0)[measure] for each in hard]))


def number(text: str) -> float:
    return float(text.replace("−", "-"))


# The slider -------------------------------------------------------------------------------------


@browses
def test_the_slider_moves_the_pictures_and_the_numbers(browser: Browser, compression: Path) -> None:
    browser.open(compression)
    ticks = browser.run("return [...document.querySelectorAll('.tick')].map(t => t.className)")
    kinds = [kind.split()[1] for kind in ticks]
    assert kinds == ["outside", *["compared", "between"] * 2, "compared", "outside"]

    start = shown(browser)
    assert (start["at"], start["valuetext"]) == ("0.018", "0.018, Compared setting")
    assert colour(start["own"]) == wanted_colour("yoto_tuned", (0.018,))
    assert colour(start["beside"]) == wanted_colour("fixed_grid", (0.018,))
    assert start["original"] is not None
    assert start["place"] == "Compared setting: a fixed network was trained for it."
    assert "Nearest" not in start["captions"]
    own, fixed, gap = start["numbers"]["loss ↓"]
    assert number(own) == pytest.approx(mean("yoto_tuned", (0.018,), "loss"), abs=6e-4)
    assert number(fixed) == pytest.approx(mean("fixed_grid", (0.018,), "loss"), abs=6e-4)
    percent = 100 * (number(own) / number(fixed) - 1)
    assert number(gap.split()[0]) == pytest.approx(percent, abs=0.1)
    assert re.search(r"\[.*, .*\]", gap)
    assert not re.search("better|equal|worse|undecided", gap)  # one seed

    browser.press(".rail input", RIGHT, RIGHT)
    later = shown(browser)
    assert later["at"] == "0.18"
    assert colour(later["own"]) == wanted_colour("yoto_tuned", (0.18,))
    assert colour(later["beside"]) == wanted_colour("fixed_grid", (0.18,))
    assert number(later["numbers"]["PSNR (dB) ↑"][0]) == pytest.approx(
        mean("yoto_tuned", (0.18,), "psnr"), abs=6e-4
    )
    assert later["chart"] != start["chart"]


@browses
def test_between_and_beyond_the_nearest_fixed_network_is_scored_with_the_same_coefficient(
    browser: Browser, compression: Path
) -> None:
    browser.open(compression)
    browser.press(".rail input", LEFT)
    held_out = shown(browser)
    assert held_out["at"] == "0.00569"
    assert held_out["place"].startswith("Held out")
    assert colour(held_out["beside"]) == wanted_colour("fixed_grid", (0.0018,))
    assert held_out["place"].endswith("no fixed network was trained for it.")
    assert "told λ = 0.00569" in held_out["captions"]
    assert "Nearest fixed network" in held_out["captions"]
    assert "trained for λ = 0.0018" in held_out["captions"]
    bits, distortion = (mean("fixed_grid", (0.0018,), name) for name in ("bpp", "distortion"))
    own, fixed, gap = held_out["numbers"]["loss ↓"]
    assert number(fixed) == pytest.approx(0.00569 * distortion + bits, abs=6e-4)
    assert number(own) == pytest.approx(mean("yoto_tuned", (0.00569,), "loss"), abs=6e-4)
    assert "[" not in gap  # no interval is claimed against a network of another setting
    assert held_out["numbers"]["PSNR (dB) ↑"][2] == "—"
    assert "scored with λ = 0.00569" in held_out["basis"]

    browser.press(".rail input", END)
    beyond = shown(browser)
    assert (beyond["at"], beyond["valuetext"]) == ("1.8", "1.8, Outside the range")
    assert beyond["place"].startswith("Outside the range")


@browses
def test_another_method_keeps_the_place_and_what_was_lost_is_said(
    browser: Browser, compression: Path
) -> None:
    browser.open(compression)
    choose = """
        const select = document.querySelector(".method");
        select.value = [...select.options].find((o) => o.text === arguments[0]).value;
        select.dispatchEvent(new Event("change"));
        return document.querySelectorAll(".tick").length;
    """
    browser.press(".rail input", RIGHT, RIGHT)
    assert browser.run(choose, "interpolation") == 3  # swept at no other
    assert shown(browser)["at"] == "0.18"
    assert browser.run(choose, "YOTO") == 7
    lost = shown(browser)
    assert lost["own"] is None
    assert "YOTO diverged here." in lost["basis"]
    assert lost["numbers"]["loss ↓"][0] == "—"
    assert "diverged" in browser.text(".picture.own")


@browses
def test_a_reader_hears_where_the_slider_came_to(browser: Browser, compression: Path) -> None:
    browser.open(compression)
    browser.press(".rail input", LEFT)
    wait = """
        const spoken = document.querySelector(".spoken");
        return new Promise((done) => {
          const look = () => spoken.textContent ? done(spoken.textContent) : setTimeout(look, 20);
          look();
        });
    """
    said = browser.run(wait).replace("\xa0", " ")
    assert said.startswith("λ = 0.00569. Held out.")
    assert "PSNR (dB)" in said
    assert browser.run("return document.querySelector('.spoken').getAttribute('role')") == "status"


@browses
def test_one_slider_per_coefficient_shows_only_what_was_measured(
    browser: Browser, pages: Callable[..., Path]
) -> None:
    centre, alone = (1.0, 1.0), [(0.1, 1.0), (10.0, 1.0), (1.0, 0.1), (1.0, 10.0)]
    file = pages(
        {
            "task": "style",
            "settings": (centre, *alone),
            "swept": ((0.316, 1.0), (1.0, 3.16)),
            "axes": STYLE,
            "measures": {name: style_of(name) for name in ("loss", "content", "style")},
            "fronts": (("style", "content"),),
            "values": styled,
            "picture": None,
        }
    )
    browser.open(file)
    place = "return [...document.querySelectorAll('.slider .value')].map((o) => o.textContent)"
    assert browser.run(place) == ["1", "1"]
    browser.press(".slider:nth-child(2) input", RIGHT)
    assert browser.run(place) == ["1", "3.16"]
    browser.press(".slider:nth-child(1) input", LEFT)
    assert browser.run(place) == ["0.316", "1"]  # nothing was measured at 0.316 and 3.16
    assert browser.run("return document.querySelector('.together').hidden") is False
    assert browser.run("return document.querySelector('.picture.own').hidden") is True
    names = browser.run(
        "return [...document.querySelectorAll('.rail input')].map((i) => i.ariaLabel)"
    )
    assert names == ["c, the coefficient of content", "s, the coefficient of style"]


@browses
def test_what_the_reference_cannot_judge_is_hollow_and_unsaid(
    browser: Browser, failing: Path
) -> None:
    browser.open(failing)
    assert re.search(
        r"\[.*\].*(better|equal|worse|undecided)", shown(browser)["numbers"]["loss ↓"][2]
    )
    assert shown(browser)["chart"].count('class="beside fails"') == 1
    browser.press(".rail input", RIGHT, RIGHT)
    there = shown(browser)
    assert there["at"] == "0.18"
    assert "the reference fails" in there["place"]
    assert not re.search("better|equal|worse|undecided", str(there["numbers"]))
    fails = browser.run(
        "return [...document.querySelectorAll('.tick.fails')].map(t => t.innerText)"
    )
    assert fails == ["0.18"]


# The tables -------------------------------------------------------------------------------------


COLUMN = """
    const listing = [...document.querySelectorAll(".listing")].find((one) =>
      one.querySelector(".scroll").ariaLabel === arguments[0]);
    const heads = [...listing.querySelectorAll("thead th")];
    const column = heads.findIndex((head) =>
      head.textContent.replaceAll("\u00a0", " ") === arguments[1]);
    if (arguments[2] === "click") heads[column].querySelector("button").click();
    if (arguments[2] === "focus") heads[column].querySelector("button").focus();
    return [heads[column].getAttribute("aria-sort"),
      [...listing.querySelectorAll("tbody tr")].map((row) => row.cells[column].innerText)];
"""


@browses
def test_tables_sort_by_value_with_what_is_missing_last(
    browser: Browser, compression: Path
) -> None:
    browser.open(compression)
    title, head = "Gap to one network per setting", "Δ loss (%) ↓"
    order, before = browser.run(COLUMN, title, head)
    assert order is None
    order, rising = browser.run(COLUMN, title, head, "click")
    known = [number(text.split()[0]) for text in rising if text != "diverged"]
    assert order == "ascending"
    assert known == sorted(known)
    assert sorted(rising) == sorted(before)
    assert before[-1] != "diverged"
    assert rising[-1] == "diverged"
    order, falling = browser.run(COLUMN, title, head, "click")
    known = [number(text.split()[0]) for text in falling if text != "diverged"]
    assert order == "descending"
    assert known == sorted(known, reverse=True)
    assert falling[-1] == "diverged"
    browser.run(COLUMN, title, "method", "focus")
    keys = {"type": "key", "id": "keys"}
    actions = [{"type": way, "value": ENTER} for way in ("keyDown", "keyUp")]
    browser.call("/actions", {"actions": [{**keys, "actions": actions}]})
    order, names = browser.run(COLUMN, title, "method")
    assert order == "ascending"
    assert names == sorted(names, key=str.lower)
    assert browser.run(COLUMN, title, head)[0] is None


@browses
def test_tables_filter_by_every_word(browser: Browser, compression: Path) -> None:
    browser.open(compression)
    script = """
        const listing = [...document.querySelectorAll(".listing")].find((one) =>
          one.querySelector(".scroll").ariaLabel === "Gap to one network per setting");
        const field = listing.querySelector("input");
        field.value = arguments[0];
        field.dispatchEvent(new Event("input"));
        const rows = [...listing.querySelectorAll("tbody tr")].filter((row) => row.offsetHeight);
        return [listing.querySelector("output").textContent,
          rows.map((row) => row.cells[0].textContent + " " + row.cells[1].textContent)];
    """
    assert browser.run(script, "TUNED 0.018") == ["1 of 9 rows", ["YOTO tuned 0.018"]]
    assert browser.run(script, "no such thing") == ["0 of 9 rows", []]
    assert browser.run(script, "")[0] == "9 rows"
