"""Pages of synthetic results, and a headless Chromium to look at them."""

from __future__ import annotations

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

import pytest
from PIL import Image
from synthetic import Noise, style_of, write_results

from bench.report import build
from bench.space import Setting

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

    def open(self, path: Path | str, width: int = 1280, **media: str) -> None:
        """The file or address, in a window of that width, with everything before forgotten."""
        self.tools("Emulation.setDeviceMetricsOverride", width=width, height=900,
                   deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
        features = [{"name": name.replace("_", "-"), "value": v} for name, v in media.items()]
        self.tools("Emulation.setEmulatedMedia", features=features)
        self.call("/url", {"url": "about:blank"})
        self.log("browser")
        self.log("performance")
        self.call("/url", {"url": path if isinstance(path, str) else path.as_uri()})

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


LAMBDAS = ((0.0018,), (0.018,), (0.18,))
BETWEEN = ((0.00018,), (0.00569,), (0.0569,), (1.8,))  # below, two between, above


def codec(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
    """Numbers such as a codec's, for one picture: the loss is λ · distortion + rate, and no network
    has a lower one at a coefficient than that trained for it."""
    place = math.log(setting[0] / 0.0018) / math.log(100)
    worse = {"yoto_tuned": 0.04, "yoto": 0.2}.get(method, 0.0) * (1 + (place - 0.5) ** 2)
    bpp = 0.25 * 5.2 ** min(place, 1.1) * math.exp(0.3 * hard + worse)
    psnr = 29.24 + 12.84 * place - 1.303 * hard - worse
    distortion = 255**2 * 10 ** (-psnr / 10)
    loss = setting[0] * distortion + bpp
    return {"bpp": bpp, "psnr": psnr, "distortion": distortion, "loss": loss}


def weak(method: str, setting: Setting, hard: float, noise: Noise) -> dict[str, float]:
    """As `codec`, but the fixed network for the largest coefficient is worse than its neighbour."""
    numbers = codec(method, setting, hard + 0.1 * noise(), noise)
    if (method, setting) == ("fixed_grid", (0.18,)):
        numbers["distortion"] *= 6
        numbers["loss"] = setting[0] * numbers["distortion"] + numbers["bpp"]
    return numbers


def plain(method: str, setting: Setting) -> Image.Image:
    """A small picture of one colour, another one for every method and setting."""
    colour = hashlib.sha256(repr((method, setting)).encode()).digest()[:3]
    return Image.new("RGB", (12, 8), tuple(colour))


CODEC = {
    "loss": style_of("loss", margin="1%"),
    "bpp": style_of("rate, coded", "bpp", margin="1%", worst=4.0),
    "psnr": style_of("PSNR", "dB", "higher", margin="0.05", worst=15.0),
    "distortion": style_of("255²·MSE"),
}
RESULTS = {
    "methods": ("fixed_grid", "yoto_tuned", "yoto", "interpolation"),
    "settings": LAMBDAS,
    "swept": BETWEEN,
    "measures": CODEC,
    "fronts": (("bpp", "psnr"),),
    "values": codec,
    "pictures": 5,
    "picture": plain,
    "context": False,
}


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
            write_results(root, **{**RESULTS, **each})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.report.figures.figures", lambda *_: figure)
            build(root)
        return root / "report" / "index.html"

    return build_page


@pytest.fixture(scope="module")
def compression(pages: Callable[..., Path]) -> Path:
    gradient = Image.radial_gradient("L").convert("RGB")
    return pages({"context": True, "original": gradient, "diverged": (("yoto", 0, 2),)})


@pytest.fixture(scope="module")
def failing(pages: Callable[..., Path]) -> Path:
    return pages({"values": weak, "seeds": (0, 1, 2)})
