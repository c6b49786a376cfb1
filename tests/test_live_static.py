"""The live page without a server of ours: written, served by anybody's, run in a real browser."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import Browser, browser, browses
from test_live_page import CHOOSE, DROP, SLIDE, picture, png, rested, until

from bench.cli import main
from bench.live.networks import ZOO, load
from bench.pictures import downloads

pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")

__all__ = ["browser"]
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        downloads.get("onnxruntime-web")
    except downloads.Unavailable as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("static") / "page"
    assert main(["demo", str(ZOO), "digits", "--static", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def address(written: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(written))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_the_folder_has_no_place_of_this_machine_and_is_written_again(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = json.loads((written / "networks.json").read_text())
    (exhibit,) = listing["exhibits"]
    assert str(Path.home()) not in json.dumps(listing)
    assert (exhibit["methods"][0]["label"], len(exhibit["fixed"])) == ("yoto_tuned", 5)
    names = {path.name for path in written.iterdir()}
    assert {exhibit["own"]["file"], exhibit["own"]["decoder"], "index.html", "ort.wasm"} <= names
    assert "wasm-unsafe-eval" in (written / "index.html").read_text()
    assert main(["demo", str(ZOO), "digits", "--static", str(written)]) == 0
    assert {path.name for path in written.iterdir()} == names
    (written / "CNAME").write_text("mine")
    assert main(["demo", str(ZOO), "digits", "--static", str(written)]) == 2
    assert "holds something else (CNAME)" in capsys.readouterr().err
    (written / "CNAME").unlink()
    (tmp_path / "thesis.tex").write_text("years of work")
    capsys.readouterr()
    assert main(["demo", str(ZOO), "digits", "--static", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert main(["demo", str(ZOO), "quantiles", "--static", str(tmp_path / "new")]) == 2
    assert "none of these tasks shows pictures" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@browses
def test_the_browser_shows_what_pytorch_computes(browser: Browser, address: str) -> None:
    browser.open(address)
    until(browser, lambda shown: shown["value"] == "0.2" and rested(shown))
    network = load("digits/yoto_tuned")
    showing = network.task.showing()
    _, batch = next(iter(network.task.data("test").examples()))
    for place, value in ((0.0, 0.02), (0.37, 0.11), (1.0, 2.0)):
        browser.run(SLIDE, place)
        said = f"β {value:g}"
        shown = until(
            browser, lambda shown, said=said: shown["labels"][0].endswith(said) and rested(shown)
        )
        with torch.no_grad():
            model = network.at(value)
            wanted = (255 * showing.picture(model, batch)).permute(1, 2, 0).numpy()
            kl = network.task.losses(model, batch)["kl"].item()
        assert np.abs(picture(shown["left"]) - wanted).max() <= 0.51  # rounded to 8 bits
        assert float(shown["numbers"]["rate, KL, nats ↓"][0]) == pytest.approx(kl, abs=0.011)


@browses
def test_a_picture_of_ones_own_and_latents_stay_in_the_browser(
    browser: Browser, address: str
) -> None:
    browser.open(address)
    before = until(browser, rested)
    browser.run(DROP, png(40, 60, 3), "mine.png")
    until(browser, lambda shown: shown["left"] != before["left"] and rested(shown))
    assert browser.run("return document.querySelector('#example').value") == "own"
    mine = browser.run("return document.querySelector('img.left').src")
    browser.run("document.querySelector('#latents .sample').click()")
    until(browser, lambda shown: shown["left"] != mine and not shown["stale"])
    browser.run(DROP, "eA==", "none.png")
    shown = until(browser, lambda shown: shown["error"])
    assert "none that this browser can read" in shown["status"]
    sent = [
        json.loads(line["message"])["message"]["params"]["request"]
        for line in browser.log("performance")
        if json.loads(line["message"])["message"]["method"] == "Network.requestWillBeSent"
    ]
    assert all(each["method"] == "GET" for each in sent)
    elsewhere = [each["url"] for each in sent if not each["url"].startswith((address, "blob:"))]
    assert not [url for url in elsewhere if not url.startswith(("data:", "about:"))]


@browses
def test_tasks_are_chosen_and_an_absent_file_is_told(
    browser: Browser, address: str, written: Path
) -> None:
    file = written / "networks.json"
    content = file.read_text()
    file.unlink()
    try:
        browser.open(address)
        shown = until(browser, lambda shown: shown["error"])
        assert "networks.json cannot be loaded (404)" in shown["status"]
    finally:
        file.write_text(content)
    browser.open(address)
    browser.run(CHOOSE, "digits")
    until(browser, rested)
