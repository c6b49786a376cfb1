"""The page: what it may do, what names cannot do to it, and who can read it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pages import CODEC, LEFT, RIGHT, Browser, browser, browses, compression, failing, pages
from PIL import Image
from synthetic import LAMBDA, style_of

from bench.report.page import Listing, value_of, verdict_in
from bench.report.rendering import embedded, markdown
from bench.report.rendering import html as rendered
from bench.report.sheet import Sheet
from bench.space import Setting

__all__ = ["browser", "compression", "failing", "pages"]

HOSTILE = "<img src=x onerror=document.title='owned'></script><script>document.title='owned'//"


# What the page may and may not do ---------------------------------------------------------------


@browses
def test_no_request_leaves_the_page_and_nothing_complains(
    browser: Browser, compression: Path
) -> None:
    browser.open(compression)
    browser.press(".rail input", LEFT, LEFT, RIGHT)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert browser.log("browser") == []
    messages = [json.loads(line["message"])["message"] for line in browser.log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    asked = {each["request"]["url"] for each in sent}
    assert compression.as_uri() in asked  # so the log does see requests
    assert all(url.startswith(("data:", compression.as_uri())) for url in asked)
    decoded = (
        "return [...document.images].filter((i) => !i.hidden && i.src).map((i) => i.naturalWidth)"
    )
    sizes = browser.run(decoded)
    assert len(sizes) == 4  # two outputs, the original, one figure
    assert all(sizes)


@browses
def test_its_policy_refuses_what_it_does_not_name(browser: Browser, compression: Path) -> None:
    browser.open(compression)
    browser.run(
        """
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/picture.png";
        document.body.append(script, image);
        """
    )
    refused = " ".join(line["message"] for line in browser.log("browser"))
    assert "script-src" in refused
    assert "img-src" in refused
    assert browser.run("return document.title") == "yoto-bench: Image compression, quick"


@browses
def test_hostile_names_are_text(browser: Browser, pages: Callable[..., Path]) -> None:
    measures = {**CODEC, "loss": style_of(HOSTILE, margin="1%")}
    axes = [{**LAMBDA[0], "symbol": HOSTILE}]
    file = pages(
        {
            "task": HOSTILE,
            "methods": ("fixed_grid", "yoto", HOSTILE),
            "measures": measures,
            "axes": axes,
        }
    )
    browser.open(file)
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.run("return document.title").startswith("yoto-bench: <img src=x")
    assert browser.log("browser") == []
    assert "<img src=x onerror" in browser.text(".task h2")
    assert "<img src=x onerror" in browser.text(".answers tbody th")
    assert "<img src=x onerror" in browser.text(".slider p")
    options = browser.run(
        "return [...document.querySelectorAll('.method option')].map((o) => o.text)"
    )
    assert any(text.startswith("<img src=x onerror") for text in options)
    assert browser.run("return document.querySelectorAll('script').length") == 2  # data, and ours


# For everybody ----------------------------------------------------------------------------------


@browses
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_never_scrolls_sideways(
    browser: Browser, pages: Callable[..., Path], width: int
) -> None:
    long = "yoto_tuned[stratified=True, multiplier=0.05, width=2.0]"
    browser.open(pages({"methods": ("fixed_grid", "yoto", long)}), width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    thumb = browser.run(
        "return document.querySelector('.rail input').getBoundingClientRect().height"
    )
    assert thumb >= 40  # enough for a finger


@browses
def test_it_is_dark_where_the_reader_wants_it(browser: Browser, compression: Path) -> None:
    script = "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    browser.open(compression, prefers_color_scheme="light")
    assert min(browser.run(script)) > 200
    browser.open(compression, prefers_color_scheme="dark")
    assert max(browser.run(script)) < 60


@browses
def test_everything_that_can_be_used_has_a_name(browser: Browser, compression: Path) -> None:
    browser.open(compression)
    tree = browser.tools("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "combobox", "searchbox", "image", "link", "region", "table"}
    nodes = [n for n in tree if not n["ignored"] and n["role"]["value"] in roles]
    found = {n["role"]["value"] for n in nodes}
    assert {"button", "slider", "combobox", "searchbox", "image", "region"} <= found
    nameless = [n for n in nodes if n["role"]["value"] != "table" and not n["name"]["value"]]
    assert nameless == []
    levels = browser.run("return [...document.querySelectorAll('h1,h2,h3')].map((h) => h.tagName)")
    assert levels[0] == "H1"
    assert levels.count("H1") == 1


# Without a browser ------------------------------------------------------------------------------


def test_the_page_is_whole_and_its_policy_fits(compression: Path) -> None:
    text = compression.read_text(encoding="utf-8")
    assert not re.search(r"src=\"(?!data:)", text)
    links = [link for link in re.findall(r"href=\"([^\"]*)\"", text) if link[0] not in "#d"]
    assert len(links) == text.count('class="csv"') >= 8
    assert all((compression.parent / link).suffix == ".csv" for link in links)
    assert all((compression.parent / link).is_file() for link in links)
    assert "http://" not in re.sub(r'"http://www.w3.org/2000/svg"', "", text)
    for name in ("style", "script"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}" in html.unescape(text)


def test_what_to_know_first_stands_first(compression: Path) -> None:
    text = compression.read_text(encoding="utf-8")
    order = [
        "The answer so far",
        "no verdict: one seed",
        "Which number decides?",
        '<section class="task"',
        "Read this first",
        "One seed is a demonstration, not evidence. Nothing is called better",
        "Use it today?",
        "Is the grid a fair yardstick?",
        '<div class="knob">',
        "Lost and saved",
        "<h3>Front and knob",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("Which number decides?") == 1
    assert not re.search(r'class="v (better|equal|worse|undecided)', text)  # one seed
    assert "<b>" not in re.sub(r"<template.*?</template>", "", text, flags=re.DOTALL)


def test_nothing_is_judged_where_the_reference_fails(failing: Path) -> None:
    text = failing.read_text(encoding="utf-8")
    assert (
        "§ The grid fails at λ = 0.18. Nothing is called better or worse there: the network" in text
    )
    (content,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    for method in json.loads(content)["methods"]:
        for point in method["points"]:
            assert point["fails"] == (point["at"] == [0.18])
            if point["fails"]:
                assert {gap["verdict"] for gap in point["gaps"].values()} == {""}
    rows = re.findall(r"<tr>(?:(?!</tr>).)*0\.18 §(?:(?!</tr>).)*</tr>", text)
    assert len(rows) > 4
    assert not any('class="v' in row or "<b>" in row for row in rows)


def test_a_verdict_is_marked_whatever_follows_it() -> None:
    assert verdict_in("worse °") == "worse"
    assert verdict_in("no verdict §") == ""
    sheet = Sheet(["method", "verdict", "n"], [["a", "worse °", "ref."], ["", "—", "1"]], 2, [2])
    listing = Listing.of(sheet)
    assert listing.names == ["a", "a"]  # so that rows can move
    assert listing.kinds == ["", "", "n"]


def test_the_same_results_give_the_same_page(pages: Callable[..., Path]) -> None:
    one, other = (pages({}).read_text() for _ in range(2))
    root = re.compile(r"<code>python run_bench.py report .*?</code>")
    assert root.sub("", one) == root.sub("", other)


def test_large_pictures_are_cut_and_recoded_and_the_page_stays_small(
    pages: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)

    def noisy(method: str, setting: Setting) -> Image.Image:
        return Image.fromarray(np.roll(noise, len(method) + round(1e4 * setting[0])))

    many = {"picture": noisy, "methods": ("fixed_grid", "yoto")}
    whole = pages(many).read_text()
    assert "Previews: the middle 384 × 384 of 500 × 400 pixels, recompressed" in whole
    monkeypatch.setattr("bench.report.page.PAGE", len(whole) // 2)
    assert len(pages(many).read_text()) < 0.6 * len(whole)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("−3.1 [−4.0, −2.2]", -3.1),
        ("+0.018 †", 0.018),
        ("0.20×", 0.2),
        ("34.2 TFLOP", 34.2e12),
        ("6.79 MB (0.5×)", 6.79e6),
        ("12 B", 12.0),
        ("31.1 ± 0.2", 31.1),
        ("—", None),
        ("c = 0.1", None),
        ("3f2a9c", None),
    ],
)
def test_cells_sort_by_the_number_that_they_begin_with(text: str, value: float | None) -> None:
    assert value_of(text) == value


def test_text_is_escaped_and_markup_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a template writes, for which nothing needs to be remembered in it."""
    monkeypatch.setattr("bench.report.rendering.source", lambda name: name)
    assert rendered('<p class="{{ a }}">', a='x" onclick="y') == (
        '<p class="x&#34; onclick=&#34;y">'
    )
    assert rendered("{{ a }}{{ b }}", a="</p>&", b=embedded("<b>")) == (
        '&lt;/p&gt;&amp;"\\u003cb>"'
    )
    assert markdown("| {{ a }}", a="b | *c*\n# d") == "| b \\| \\*c\\* \\# d"
    with pytest.raises(Exception, match="'missing' is undefined"):
        markdown("{{ missing }}")
    assert "</script" not in embedded({"a": "</script><!--"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded(math.nan)


def test_a_run_without_the_grid_or_with_nothing_else_still_has_a_page(
    pages: Callable[..., Path],
) -> None:
    alone = pages({"methods": ("yoto",), "task": "a"}, {"methods": ("fixed_grid",), "task": "b"})
    text = alone.read_text()
    assert "there is no fixed grid to compare with" in text
    assert text.count('<div class="knob">') == 1
