"""The live page in a real browser: sliders, pictures, the wipe, a phone, two tabs, bad pictures.

Needs Chromium and its driver, as `test_page.py` does.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import END, LEFT, RIGHT, Browser, browser, browses
from PIL import Image

from bench.live.answers import Answers
from bench.live.networks import ZOO, exhibited
from bench.live.server import Server

__all__ = ["browser"]
pytestmark = pytest.mark.xdist_group("browser")

CHOOSE = """
    const select = document.querySelector("#task");
    const place = [...select.options].findIndex((option) => option.text.includes(arguments[0]));
    select.value = place;
    select.dispatchEvent(new Event("change"));
"""
SHOWN = """
    const text = (selector) =>
      document.querySelector(selector)?.innerText.replaceAll("\\u00a0", " ");
    const left = document.querySelector("img.left"), right = document.querySelector("img.right");
    return {
      value: text("#sliders .value"), status: text("#status"), place: text("#place"),
      left: left.getAttribute("src"), right: right.getAttribute("src"),
      labels: [text(".label.left"), text(".label.right")],
      stale: document.querySelector("#numbers").classList.contains("stale"),
      error: document.querySelector("#status").classList.contains("error"),
      numbers: Object.fromEntries([...document.querySelectorAll("#numbers tr")].map(
        (row) => [row.cells[0].innerText, [...row.cells].slice(1).map((c) => c.innerText)])),
      spoken: document.querySelector("#sliders input")?.getAttribute("aria-valuetext"),
      dots: document.querySelectorAll("#chart circle").length,
    };
"""
SLIDE = """
    const input = document.querySelectorAll("#sliders input")[arguments[1] ?? 0];
    input.value = arguments[0];
    input.dispatchEvent(new Event("input", { bubbles: true }));
"""
DROP = """
    const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], arguments[1]));
    document.body.dispatchEvent(
      new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    answers = Answers(exhibited(ZOO, "", None), torch.device("cpu"))
    with Server(answers) as server, server.serving():
        yield server


def until(browser: Browser, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the page shows as soon as it does what is waited for."""
    for _ in range(600):
        shown: dict[str, Any] = browser.run(SHOWN)
        if holds(shown):
            return shown
        time.sleep(0.05)
    raise AssertionError(shown)


def rested(shown: dict[str, Any]) -> bool:
    return bool(shown["numbers"]) and not shown["stale"]


@pytest.fixture
def digits(server: Server, browser: Browser) -> Browser:
    browser.open(server.address)
    until(browser, lambda shown: bool(shown["value"]))
    browser.run(CHOOSE, "digits")
    until(browser, lambda shown: shown["value"] == "0.2" and rested(shown))
    return browser


def picture(source: str) -> np.ndarray:
    data = base64.b64decode(source.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def png(*shape: int) -> str:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def no_errors(browser: Browser) -> None:
    """But that a browser says itself which questions were superseded."""
    messages = [line["message"] for line in browser.log("browser")]
    assert [message for message in messages if "409 (Conflict)" not in message] == []


@browses
def test_a_slider_moves_the_picture_and_then_the_numbers(digits: Browser) -> None:
    before = digits.run(SHOWN)
    assert before["labels"] == ["YOTO tuned, β 0.2", "network trained for β 0.2"]
    digits.run(SLIDE, 1)
    after = until(digits, lambda shown: shown["labels"][1].endswith("2") and rested(shown))
    assert (after["value"], after["spoken"]) == ("2", "2")
    assert np.abs(picture(before["left"]) - picture(after["left"])).max() > 10
    assert float(after["numbers"]["rate, KL, nats ↓"][0]) < float(
        before["numbers"]["rate, KL, nats ↓"][0]
    )
    digits.run(SLIDE, 0.4)
    near = until(digits, lambda shown: shown["value"] == "0.126" and rested(shown))
    assert near["labels"] == ["YOTO tuned, β 0.126", "network trained for β 0.2"]
    until(digits, lambda shown: shown["dots"] >= 9 + 5 + 1)  # the curve, the grid, and now
    no_errors(digits)


def drag(browser: Browser, selector: str, start: float, end: float) -> None:
    """A pointer that goes from one share of an element's width to another, held down."""
    left, top, width = browser.run(
        """
        const element = document.querySelector(arguments[0]);
        element.scrollIntoView({ block: "center" });
        const { left, top, width, height } = element.getBoundingClientRect();
        return [left, top + height / 2, width];
        """,
        selector,
    )
    places = [round(left + width * (start + (end - start) * step / 8)) for step in range(9)]
    moves = [{"type": "pointerMove", "duration": 40, "x": x, "y": round(top)} for x in places]
    actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:],
               {"type": "pointerUp", "button": 0}]  # fmt: skip
    pointer = {"type": "pointer", "id": "mouse", "actions": actions}
    browser.call("/actions", {"actions": [pointer]})


@browses
def test_a_pointer_drags_the_slider_and_the_wipe(digits: Browser) -> None:
    before = digits.run(SHOWN)
    drag(digits, "#sliders input", 0.5, 0.8)
    shown = until(digits, lambda shown: shown["value"] != "0.2" and rested(shown))
    assert 1 < float(shown["value"]) < 4
    assert shown["labels"][0] == f"YOTO tuned, β {shown['value']}"
    assert shown["left"] != before["left"]
    drag(digits, "#wipe input", 0.5, 0.2)
    at = digits.run("return document.querySelector('#wipe').style.getPropertyValue('--at')")
    assert 10 < float(at.removesuffix("%")) < 30


@browses
def test_keys_go_beyond_the_range_which_is_said(digits: Browser) -> None:
    digits.press("#sliders input", RIGHT, RIGHT, LEFT)
    one = until(digits, lambda shown: shown["value"] == "0.209" and rested(shown))
    assert one["place"] == ""
    digits.press("#sliders input", END)
    far = until(digits, lambda shown: shown["value"] == "6.32" and rested(shown))
    assert far["place"] == "Outside the range trained with: β = 6.32 is outside [0.02, 2]"
    assert far["spoken"] == "6.32, outside the range"


@browses
def test_the_wipe_moves_and_shows_the_original(digits: Browser) -> None:
    digits.press("#wipe input", RIGHT)
    at = digits.run("return document.querySelector('#wipe').style.getPropertyValue('--at')")
    assert at == "50.5%"
    digits.run("document.querySelector('[name=beside][value=original]').click()")
    shown = digits.run(SHOWN)
    assert shown["right"].startswith("blob:")
    assert shown["labels"][1] == "original"


@browses
def test_latents_move_and_a_sample_is_drawn(digits: Browser) -> None:
    before = digits.run(SHOWN)
    digits.run("document.querySelector('#latents').open = true")
    digits.run("document.querySelector('#latents .sample').click()")
    drawn = until(digits, lambda shown: shown["left"] != before["left"] and not shown["stale"])
    assert drawn["numbers"] == {}
    digits.run("document.querySelector('#latents .reset').click()")
    until(digits, lambda shown: shown["left"] == before["left"] and rested(shown))


@browses
def test_a_dropped_picture_is_coded(server: Server, browser: Browser) -> None:
    browser.open(server.address)
    until(browser, rested)
    browser.run(DROP, png(64, 96, 3), "noise.png")
    until(browser, lambda shown: "96 × 64" in shown["status"] and rested(shown))
    assert browser.run("return document.querySelector('img.left').naturalWidth") == 96
    assert browser.run("return document.querySelector('#example').value") == "own"
    no_errors(browser)


@browses
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (base64.b64encode(b"<script>alert(1)</script>").decode(), "no JPEG, PNG, TIFF or WebP"),
        (png(8, 90, 3), "fewer than 16 pixels"),
        (base64.b64encode(bytes(25_000_001)).decode(), "more than 25,000 kB"),
    ],
    ids=["a page", "tiny", "large"],
)
def test_a_hostile_picture_is_an_error_in_the_page(
    digits: Browser, content: str, words: str
) -> None:
    digits.run(DROP, content, "<img src=x onerror=alert(1)>.png")
    shown = until(digits, lambda shown: shown["error"])
    assert words in shown["status"]
    digits.run(SLIDE, 0.25)  # and it goes on
    until(digits, lambda shown: shown["value"] == "0.0632" and rested(shown) and not shown["error"])


@browses
def test_while_an_answer_is_slow_only_the_newest_question_is_asked(
    digits: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = Answers.answer, []

    def slow(self: Answers, question: Any, superseded: Any) -> Any:
        asked.append((question.setting[0], question.rest))
        time.sleep(0.3)
        return answer(self, question, superseded)

    monkeypatch.setattr(Answers, "answer", slow)
    for place in (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9):
        digits.run(SLIDE, place)
    shown = until(digits, lambda shown: shown["value"] == "1.26" and rested(shown))
    assert shown["labels"][0] == "YOTO tuned, β 1.26"
    quick = [setting for setting, rest in asked if not rest]
    assert quick[-1] == 1.26
    assert len(quick) <= 4
    assert (1.26, True) in asked


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer takes a third of a second more."""
    answer = Answers.answer

    def slow(self: Answers, question: Any, superseded: Any) -> Any:
        time.sleep(0.3)
        return answer(self, question, superseded)

    monkeypatch.setattr(Answers, "answer", slow)


@browses
def test_a_late_picture_has_the_label_of_its_own_setting(digits: Browser, slowly: None) -> None:
    pairs: dict[str, set[str]] = {}
    for place in (1, 0, 0.75):
        digits.run(SLIDE, place)
        for _ in range(6):
            shown = digits.run(SHOWN)
            pairs.setdefault(shown["labels"][0], set()).add(shown["left"])
    shown = until(digits, lambda shown: shown["labels"][0] == "YOTO tuned, β 0.632")
    pairs.setdefault(shown["labels"][0], set()).add(shown["left"])
    assert len(pairs) >= 2
    assert all(len(pictures) == 1 for pictures in pairs.values())


@browses
def test_what_was_asked_of_another_task_is_dropped(digits: Browser, slowly: None) -> None:
    digits.run("document.querySelector('#latents .sample').click()")
    digits.run(CHOOSE, "quantile")
    digits.run(DROP, png(64, 64, 3), "mine.png")  # which it does not take
    digits.run(CHOOSE, "rendered scenes")
    digits.run(SLIDE, 1)
    shown = until(digits, lambda shown: shown["value"] == "8" and rested(shown))
    assert shown["labels"] == ["YOTO tuned, β 8", "network trained for β 8"]
    assert picture(shown["left"]).shape == (32, 32, 3)
    options = "return [...document.querySelector('#example').options].map((o) => o.value)"
    assert digits.run(options)[0] == "example:0"
    assert not digits.run("return document.querySelector('#wipe').hidden")
    no_errors(digits)


@browses
def test_a_slider_that_moves_during_a_film_is_answered(digits: Browser, slowly: None) -> None:
    digits.run("document.querySelector('#film').click()")
    digits.run(SLIDE, 1)
    shown = until(digits, lambda shown: shown["labels"][0] == "YOTO tuned, β 2" and rested(shown))
    assert shown["value"] == "2"
    until(digits, lambda shown: shown["status"] == "The film is saved.")


@browses
def test_two_tabs_do_not_disturb_one_another(digits: Browser, server: Server) -> None:
    first = digits.call("/window", way="GET")
    second = digits.call("/window/new", {"type": "tab"})["handle"]
    digits.call("/window", {"handle": second})
    digits.call("/url", {"url": server.address})
    until(digits, lambda shown: bool(shown["value"]))
    digits.run(CHOOSE, "digits")
    until(digits, lambda shown: shown["value"] == "0.2" and rested(shown))
    digits.run(SLIDE, 0)
    digits.call("/window", {"handle": first})
    digits.run(SLIDE, 1)
    until(digits, lambda shown: shown["labels"][0] == "YOTO tuned, β 2" and rested(shown))
    digits.call("/window", {"handle": second})
    until(digits, lambda shown: shown["labels"][0] == "YOTO tuned, β 0.02" and rested(shown))
    digits.call("/window", way="DELETE")
    digits.call("/window", {"handle": first})


@browses
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_the_dark(
    server: Server, browser: Browser, width: int, scheme: str
) -> None:
    browser.open(server.address, width, prefers_color_scheme=scheme)
    until(browser, rested)
    across, ground, top = browser.run("""
        const box = (selector) => document.querySelector(selector).getBoundingClientRect();
        return [document.documentElement.scrollWidth,
                getComputedStyle(document.body).backgroundColor,
                box("#sliders").top - box("#wipe").bottom];
    """)
    assert across <= width
    assert (ground == "rgb(21, 20, 19)") == (scheme == "dark")
    if width < 500:
        assert 0 <= top < 60  # the slider is right below the picture
    no_errors(browser)


@browses
def test_a_server_that_is_gone_is_told(browser: Browser) -> None:
    answers = Answers(exhibited(ZOO, "digits", None), torch.device("cpu"))
    with Server(answers) as server, server.serving():
        browser.open(server.address)
        until(browser, rested)
    browser.run(SLIDE, 1)
    shown = until(browser, lambda shown: shown["error"])
    assert "stopped" in shown["status"]


@browses
def test_a_sweep_is_saved_as_a_film(digits: Browser, tmp_path: Path) -> None:
    digits.tools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    digits.run("document.querySelector('#film').click()")
    until(digits, lambda shown: shown["status"] == "The film is saved.")
    for _ in range(100):
        saved = [path for path in tmp_path.iterdir() if path.suffix in (".webm", ".mp4")]
        if saved and saved[0].stat().st_size > 10_000:
            break
        time.sleep(0.05)
    assert saved[0].name.startswith("digits-kl.")
    assert saved[0].stat().st_size > 10_000


@browses
def test_a_task_without_pictures_has_a_large_curve(server: Server, browser: Browser) -> None:
    browser.open(server.address)
    until(browser, lambda shown: bool(shown["value"]))
    browser.run(CHOOSE, "quantile")
    shown = until(browser, lambda shown: shown["value"] == "1" and rested(shown))
    assert browser.run("return document.querySelector('#wipe').hidden")
    assert browser.run("return !!document.querySelector('.view #chart')")
    assert browser.text("#sliders .also") == "τ = 0.5"
    assert "pinball loss ↓" in shown["numbers"]
    until(browser, lambda shown: shown["dots"] >= 9 + 7 + 1)
