"""The page in a real browser: the slider, the tables, what it asks for, and what names cannot do.

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`); the tests that
drive them are skipped where there are none.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.identity import content_id
from bench.report import build
from bench.run.records import Record, dumps
from bench.space import Setting, format_setting

Picture = Callable[[str, Setting], Image.Image | None]

LAMBDAS = ((0.0018,), (0.018,), (0.18,))
BETWEEN = ((0.00018,), (0.00569,), (0.0569,), (1.8,))  # below, two between, above
LAMBDA = [{"name": "distortion", "low": 0.0018, "high": 0.18, "symbol": "λ"}]
STYLE = [
    {"name": "content", "low": 0.1, "high": 10.0, "symbol": "c"},
    {"name": "style", "low": 0.1, "high": 10.0, "symbol": "s"},
]
HOSTILE = "<img src=x onerror=document.title='owned'></script><script>document.title='owned'//"


def codec(method: str, setting: Setting, hard: float) -> dict[str, float]:
    """Numbers such as a codec's, for one picture: the loss is λ · distortion + rate, and no network
    has a lower one at a coefficient than that trained for it."""
    place = math.log(setting[0] / 0.0018) / math.log(100)
    worse = {"yoto_tuned": 0.04, "yoto": 0.2}.get(method, 0.0) * (1 + (place - 0.5) ** 2)
    bpp = 0.25 * 5.2 ** min(place, 1.1) * math.exp(0.3 * hard + worse)
    psnr = 29.24 + 12.84 * place - 1.303 * hard - worse
    distortion = 255**2 * 10 ** (-psnr / 10)
    loss = setting[0] * distortion + bpp
    return {"bpp": bpp, "psnr": psnr, "distortion": distortion, "loss": loss}


def styled(method: str, setting: Setting, hard: float) -> dict[str, float]:
    content, style = (value**-0.5 * math.exp(0.1 * hard) for value in setting)
    loss = setting[0] * content + setting[1] * style
    return {"content": content, "style": style, "loss": loss * (1.1 - 0.1 * ("fixed" in method))}


def plain(method: str, setting: Setting) -> Image.Image:
    """A small picture of one colour, another one for every method and setting."""
    colour = hashlib.sha256(repr((method, setting)).encode()).digest()[:3]
    return Image.new("RGB", (12, 8), tuple(colour))


def style_of(label: str, unit: str = "", better: str = "lower", **more: Any) -> dict[str, Any]:
    return {"label": label, "unit": unit, "better": better, "digits": 3, **more}


CODEC = {
    "loss": style_of("loss", margin="1%"),
    "bpp": style_of("rate, coded", "bpp", margin="1%", worst=4.0),
    "psnr": style_of("PSNR", "dB", "higher", margin="0.05", worst=15.0),
    "distortion": style_of("255²·MSE"),
}


def write(
    root: Path,
    *,
    task: str = "compression",
    methods: tuple[str, ...] = ("fixed_grid", "yoto_tuned", "yoto", "interpolation"),
    settings: tuple[Setting, ...] = LAMBDAS,
    swept: tuple[Setting, ...] = BETWEEN,
    axes: list[dict[str, Any]] = LAMBDA,
    measures: dict[str, dict[str, Any]] = CODEC,
    fronts: tuple[tuple[str, str], ...] = (("bpp", "psnr"),),
    values: Callable[[str, Setting, float], dict[str, float]] = codec,
    picture: Picture | None = plain,
    original: Image.Image | None = None,
    seeds: tuple[int, ...] = (0,),
    examples: int = 5,
    lost: tuple[tuple[str, Setting], ...] = (),
) -> None:
    """A results folder as the runner writes it; methods named after YOTO are swept, too."""
    names = [axis["name"] for axis in axes]
    shared = {"task": task, "preset": "quick", "experiment": "e1"}
    provenance = {"commit": "0123456789ab", "packages": {"torch": "2.9.0"}, "command": "run x"}
    display = {"measures": measures, "fronts": fronts, "axes": axes, "sample_line": ""}

    def entry(method: str, seed: int, setting: Setting, kind: str, cell: str) -> None:
        text = format_setting(names, setting)
        identity = content_id([task, method, seed, text, kind])
        head = {**shared, "method": method, "seed": seed, "setting": text}
        bad = (method, setting) in lost
        rows = [
            Record(task, "quick", "e1", method, seed, cell, text, f"picture{i}", name, value)
            for i in range(0 if bad else examples)
            for name, value in values(method, setting, float(np.sin(9 * i + seed))).items()
        ]
        stem = root / "records" / content_id(task) / content_id(method) / identity
        stem.parent.mkdir(parents=True, exist_ok=True)
        if not bad:
            stem.with_suffix(".csv").write_text(dumps(rows))
        if picture and not bad and (drawn := picture(method, setting)):
            drawn.save(stem.with_suffix(".png"))
        pairs = zip(axes, setting, strict=True)
        outside = [f"{a['name']} = {v:g}" for a, v in pairs if not a["low"] <= v <= a["high"]]
        done = {
            **head, "id": identity, "cells": [cell], "outside": outside, "display": display,
            "provenance": provenance, "time": 1e9, "kind": kind,
            "status": "diverged" if bad else "done",
            "sha256": hashlib.sha256(dumps(rows).encode()).hexdigest(),
        }  # fmt: skip
        stem.with_suffix(".json").write_text(json.dumps(done))

    for method in methods:
        for seed in seeds:
            for setting in settings:
                trained_for = [setting] if method == "fixed_grid" else []
                cell = content_id([task, method, seed, trained_for])
                ledger = {
                    "steps": 800, "examples": 6400, "flops": 3.2e13, "parameters": 1_200_000,
                    "conditioner_parameters": 0 if trained_for else 300_000, "bytes": 4_800_000,
                    "seconds": {"train": 50.0, "data": 0.2}, "device_name": "a CPU, 2 threads",
                    "peak_memory_bytes": 6e8, "device": "cpu", "shared_device": False,
                }  # fmt: skip
                done = {
                    **shared, "id": cell, "status": "done", "method": method, "seed": seed,
                    "trained_for": trained_for, "after": None, "ledger": ledger,
                    "provenance": provenance,
                }  # fmt: skip
                folder = root / "runs" / content_id(task) / content_id(method) / cell
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "done.json").write_text(json.dumps(done))
                entry(method, seed, setting, "method", cell)
            for setting in swept if "yoto" in method and seed == seeds[0] else ():
                entry(method, seed, setting, "swept", cell)
    if original:
        entry("context", 0, settings[0], "context", "")
        (path,) = (root / "records" / content_id(task) / content_id("context")).glob("*.json")
        original.save(path.with_suffix(".png"))


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRIVER = shutil.which("chromedriver") or ""
browses = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no Chromium with its driver here: apt-get install chromium chromium-driver",
)


class Browser:
    """A headless Chromium, spoken to in WebDriver's own protocol."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        ready = next(line for line in self.process.stdout if "started successfully" in line)
        self.direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.address = f"http://127.0.0.1:{re.findall(r'[0-9]+', ready)[-1]}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]
        wanted = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self.call("/session", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/session/{session['sessionId']}"

    def call(self, path: str, body: dict[str, Any] | None = None, way: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.address + path, data, method=way)
        try:
            with self.direct.open(asked, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, path: Path, width: int = 1280, **media: str) -> None:
        """The file, in a window of that width, with everything that happened before forgotten."""
        self.tools("Emulation.setDeviceMetricsOverride", width=width, height=900,
                   deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        features = [{"name": name.replace("_", "-"), "value": v} for name, v in media.items()]
        self.tools("Emulation.setEmulatedMedia", features=features)
        self.call("/url", {"url": "about:blank"})
        self.log("browser")
        self.log("performance")
        self.call("/url", {"url": path.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("/execute/sync", {"script": script, "args": list(arguments)})

    def tools(self, command: str, **parameters: Any) -> Any:
        return self.call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("/se/log", {"type": kind})
        return found

    def press(self, selector: str, *keys: str) -> None:
        """Focus an element and press keys, as a reader without a mouse does."""
        self.run("document.querySelector(arguments[0]).focus()", selector)
        pressed = [{"type": way, "value": k} for k in keys for way in ("keyDown", "keyUp")]
        self.call("/actions", {"actions": [{"type": "key", "id": "keys", "actions": pressed}]})

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def close(self) -> None:
        try:
            self.call("", way="DELETE")
        finally:
            self.process.terminate()
            self.process.wait(timeout=30)


LEFT, RIGHT, ENTER, END = "\ue012", "\ue014", "\ue007", "\ue010"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes results and builds their page, without figures but one."""
    drawn = io.BytesIO()
    Image.new("RGB", (40, 30)).save(drawn, "png")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3" style="color: red"/>'
    figure = {"headline": {"png": drawn.getvalue(), "svg": svg}}

    def build_page(*tasks: dict[str, Any]) -> Path:
        root = tmp_path_factory.mktemp("results")
        for each in tasks:
            write(root, **each)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.report.figures.figures", lambda *_: figure)
            patch.setattr("bench.report.films.sweeps", lambda *_: {}, raising=False)
            build(root)
        return root / "report" / "index.html"

    return build_page


@pytest.fixture(scope="module")
def compression(pages: Callable[..., Path]) -> Path:
    gradient = Image.radial_gradient("L").convert("RGB")
    return pages({"original": gradient, "lost": (("yoto", (0.18,)),)})


def weak(method: str, setting: Setting, hard: float) -> dict[str, float]:
    """As `codec`, but the fixed network for the largest coefficient is worse than its neighbour."""
    found = codec(method, setting, hard)
    if (method, setting) == ("fixed_grid", (0.18,)):
        found["distortion"] *= 6
        found["loss"] = setting[0] * found["distortion"] + found["bpp"]
    return found


@pytest.fixture(scope="module")
def failing(pages: Callable[..., Path]) -> Path:
    return pages({"values": weak, "seeds": (0, 1, 2)})


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
    return float(np.mean([codec(method, setting, float(np.sin(9 * i)))[measure] for i in range(5)]))


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
    assert browser.run("return document.title") == "yoto-bench: compression, quick"


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
    assert "<img src=x onerror" in browser.text("h2")
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
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    assert "http://" not in re.sub(r'"http://www.w3.org/2000/svg"', "", text)
    for name in ("style", "script"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src &#x27;sha256-{digest}" in text or f"{name}-src 'sha256-{digest}" in text


def test_what_to_know_first_stands_first(compression: Path) -> None:
    text = compression.read_text(encoding="utf-8")
    order = [
        '<section class="task"',
        "Read this first",
        "1 of 3 seeds: all of this is orientation",
        "The reference examined",
        '<div class="knob">',
        "Lost and saved",
        "Which number decides?",
        "Front and knob",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("Which number decides?") == 1
    assert not re.search(r'class="v (better|equal|worse|undecided)', text)  # one seed
    assert "<b>" not in re.sub(r"<template.*?</template>", "", text, flags=re.DOTALL)


def test_nothing_is_judged_where_the_reference_fails(failing: Path) -> None:
    text = failing.read_text(encoding="utf-8")
    assert "§ The reference fails at λ = 0.18, where nothing is called better or worse" in text
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
    from bench.report.markup import listing
    from bench.report.tables import Sheet

    made = listing(
        Sheet(["method", "verdict"], [["a", "worse °"], ["b", "no verdict §"]], 1, [2]), ""
    )
    assert '<span class="v worse">worse °</span>' in made
    assert made.count('class="v') == 1


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
    from bench.report.markup import value_of

    assert value_of(text) == value


def test_text_is_escaped_and_markup_is_not() -> None:
    from bench.report.markup import embedded, tag

    made = tag("p", "a < b & c", tag("b", '"'), class_='x" onclick="y')
    assert made == '<p class="x&quot; onclick=&quot;y">a &lt; b &amp; c<b>&quot;</b></p>'
    assert "</script" not in embedded({"a": "</script><!--"})[:-9]
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded(math.nan)


def test_a_run_without_the_grid_or_with_nothing_else_still_has_a_page(
    pages: Callable[..., Path],
) -> None:
    alone = pages({"methods": ("yoto",), "task": "a"}, {"methods": ("fixed_grid",), "task": "b"})
    text = alone.read_text()
    assert "there is no fixed grid to compare with" in text
    assert text.count('<div class="knob">') == 1
