"""Figures from synthetic results: fifteen methods, several seeds, sweeps, snapshots, pictures."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from test_report import CODEC, LAMBDA, STYLE_AXES, style_settings, write_results

from bench.identity import content_id
from bench.space import format_setting, parse_setting

VARIANT = "yoto[stratified=True]"
METHODS = (
    *("fixed_grid", "yoto", "yoto_tuned", "concatenation", "gain_units", "gates", "hypernetwork"),
    *("instance_norm", "interpolation", "single_model", "step_scaling", "unconditioned", "vbr"),
    *("warm_grid", VARIANT),
)
SWEPT = ("yoto", "yoto_tuned", "concatenation", "gain_units", "gates", "hypernetwork", VARIANT)
# Mean excess of the loss, and how much more of it there is at the ends of the range.
OFF = {
    **{"fixed_grid": (0.0, 0.0), "yoto": (0.07, 0.35), "yoto_tuned": (0.005, 0.06)},
    **{"concatenation": (0.1, 0.5), "gain_units": (0.02, 0.1), "gates": (0.04, 0.3)},
    **{"hypernetwork": (0.9, 3.0), "instance_norm": (0.08, 0.3), "interpolation": (0.0, -0.1)},
    **{"single_model": (0.0, 1.6), "step_scaling": (0.01, 0.9), "unconditioned": (0.06, 1.5)},
    **{"vbr": (-0.012, 0.02), "warm_grid": (0.015, 0.0), VARIANT: (0.04, 0.2)},
}
COST = {"warm_grid": 0.1, "hypernetwork": 3.0, "gain_units": 1.02, "yoto": 1.05, "yoto_tuned": 1.05}


def margins(measures: dict[str, dict[str, Any]], **margin: str) -> dict[str, dict[str, Any]]:
    return {k: {**v, **({"margin": margin[k]} if k in margin else {})} for k, v in measures.items()}


MEASURES = margins(CODEC, loss="1%", bpp="1%", psnr="0.05", ms_ssim="0.001", lpips="0.005")


def codec(
    method: str, setting: tuple[float, ...], hard: float, noise: Callable[[], float]
) -> dict[str, float]:
    """Numbers such as a small codec's, for one picture and any of METHODS."""
    (coefficient,) = setting
    place = math.log(coefficient / 0.0018) / math.log(100)
    mean, ends = OFF[method]
    off = mean + ends * (2 * place - 1) ** 2
    told = {"single_model": 0.5, "unconditioned": 0.55}.get(method, place)
    bpp = 0.21 * 6**told * math.exp(0.3 * hard) * (1 + 0.3 * off) * (1 + 0.01 * noise())
    psnr = 26.5 + 6 * told - 1.2 * hard - 2.2 * off + 0.05 * noise()
    distortion = 255**2 * 10 ** (-psnr / 10)
    return {
        "loss": coefficient * distortion + bpp,
        "bpp": bpp,
        "bpp_estimated": bpp * 0.98,
        "psnr": psnr,
        "ms_ssim": 1 - 0.09 * 10 ** (-told) * math.exp(0.2 * hard) * (1 + off),
        "lpips": 0.4 - 0.25 * told + 0.03 * hard + 0.1 * off,
        "distortion": distortion,
        "rate": bpp,
    }


def painter(
    method: str, setting: tuple[float, ...], hard: float, noise: Callable[[], float]
) -> dict[str, float]:
    """Five weighted terms, each of which falls as its coefficient rises."""
    mean, ends = OFF[method]
    logs = [math.log10(value) for value in setting]
    off = 1 + mean + 0.3 * ends * sum(value**2 for value in logs) / 5
    fixed = method in ("single_model", "unconditioned")
    terms = [
        (0.6 - (0.0 if fixed else 0.25) * value) * off * math.exp(0.1 * hard + 0.02 * noise())
        for value in logs
    ]
    names = [axis["name"] for axis in STYLE_AXES]
    found = dict(zip(names, terms, strict=True))
    return {
        "loss": sum(c * t for c, t in zip(setting, terms, strict=True)),
        **found,
        "style": sum(terms[:4]) / 4,
        "lpips": 0.3 + 0.1 * logs[0] + 0.05 * noise(),
    }


def autoencoder(
    method: str, setting: tuple[float, ...], hard: float, noise: Callable[[], float]
) -> dict[str, float]:
    """Nats; the loss has no zero to be a per cent of."""
    (beta,) = setting
    mean, ends = OFF[method]
    told = 4.0 if method in ("single_model", "unconditioned") else beta
    kl = 40 * told**-0.5 * (1 + 0.1 * mean) + 0.2 * noise()
    nll = 1800 + 20 * told**0.5 + 20 * hard + 40 * (mean + 0.2 * ends) + noise()
    return {"loss": beta * kl + nll, "kl": kl, "reconstruction": nll, "elbo": -kl - nll}


PAINTING = {
    "loss": {"label": "loss", "better": "lower", "margin": "1%"},
    **{a["name"]: {"label": a["name"], "better": "lower"} for a in STYLE_AXES},
    "style": {"label": "style, mean of four layers", "better": "lower", "margin": "2%"},
    "lpips": {"label": "LPIPS to the photograph (AlexNet, v0.1)", "better": "lower"},
}
NATS = {
    "loss": {"label": "β-weighted loss", "better": "lower", "margin": "2", "relative": False},
    "kl": {"label": "rate, KL", "better": "lower", "margin": "0.5"},
    "reconstruction": {"label": "distortion, -log p", "better": "lower", "margin": "2"},
    "elbo": {"label": "ELBO", "better": "higher", "margin": "2"},
}
NATS = {k: {"unit": "nats", "digits": 1, **v} for k, v in NATS.items()}
BETA = [{"name": "kl", "low": 0.5, "high": 32.0, "symbol": "β"}]
SIZES: dict[str, dict[str, Any]] = {
    "compression": {
        "axes": LAMBDA,
        "measures": MEASURES,
        "values": codec,
        "fronts": (("bpp", "psnr"), ("bpp", "lpips")),
        "settings": tuple((v,) for v in (0.0018, 0.00569, 0.018, 0.0569, 0.18)),
        "swept": tuple((v,) for v in (0.00101, 0.0032, 0.0101, 0.032, 0.101, 0.32)),
    },
    "style": {
        "axes": STYLE_AXES,
        "measures": PAINTING,
        "values": painter,
        "fronts": (("style", "content"), ("style", "lpips")),
        "settings": style_settings()[:11],
        "swept": tuple(
            tuple(value if i == axis else 1.0 for i in range(5))
            for axis in range(5)
            for value in (0.0316, 0.316, 3.16, 31.6)
        ),
        "context": False,
    },
    "beta_vae": {
        "axes": BETA,
        "measures": NATS,
        "values": autoencoder,
        "fronts": (("kl", "reconstruction"),),
        "settings": tuple((2.0**k,) for k in range(-1, 6)),
        "swept": tuple((float(f"{2 ** (k + 0.5):.3g}"),) for k in range(-2, 6)),
        "context": False,
    },
}


def full_results(
    root: Path,
    task: str = "compression",
    methods: tuple[str, ...] = METHODS,
    picture: Callable[[str, tuple[float, ...]], Image.Image] | None = None,
    shares: tuple[float, ...] = (0.125, 0.25, 0.5),
    **more: Any,
) -> None:
    """A results folder with all that figures are made of, as the runner would have written it.

    Starts from the plain writer, which measures every method at every setting; then settings that
    are not compared become sweeps, snapshots are added, and costs are made to differ.
    """
    size = dict(SIZES[task])
    swept = size.pop("swept")
    compared = size.pop("settings")
    names = [axis["name"] for axis in size["axes"]]
    every = sorted({*compared, *swept}) if len(names) == 1 else (*compared, *swept)
    write_results(root, task=task, methods=methods, settings=every, **{**size, **more})
    extra = {format_setting(names, setting) for setting in swept}
    axes = {axis["name"]: axis for axis in size["axes"]}
    for path in sorted(root.glob(f"records/{task}/*/*.json")):
        head = json.loads(path.read_text())
        if head["kind"] == "context":
            if picture:
                picture("original", ()).save(path.with_suffix(".png"))
            continue
        values = parse_setting(head["setting"])
        if head["setting"] in extra:
            if head["method"] not in SWEPT or head["seed"]:
                path.unlink()
                continue
            head["kind"] = "swept"
            head["outside"] = [
                f"{name} is outside"
                for name, value in values.items()
                if not axes[name]["low"] <= value <= axes[name]["high"]
            ]
            path.write_text(json.dumps(head))
        elif head["method"] in (*SWEPT, "fixed_grid") and head["status"] == "done":
            for share in shares:
                _snapshot(path, head, share)
        if picture and not head["seed"]:
            shown = picture(head["method"], tuple(values.values()))
            shown.save(path.with_suffix(".png"))
    _costs(root, task)


def _snapshot(path: Path, head: dict[str, Any], share: float) -> None:
    """The same measurement after a share of the training, with a higher loss."""
    identity = content_id([head["id"], share])
    head = {**head, "id": identity, "kind": "snapshot", "share": share}
    slow = 0.3 if head["method"] == "yoto" else 0.15
    lines = path.with_suffix(".csv").read_text().splitlines()
    for place, line in enumerate(lines):
        *rest, name, value = line.split(",")
        if name == "loss":
            worse = float(value) + abs(float(value)) * slow * (1 / share - 1) ** 0.7
            lines[place] = ",".join([*rest, name, repr(worse)])
    text = "\n".join(lines) + "\n"
    head["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.with_name(f"{identity}.csv").write_text(text)
    path.with_name(f"{identity}.json").write_text(json.dumps(head))


def _costs(root: Path, task: str) -> None:
    """Ledgers that differ; the warm-started grid gets a fine-tuning per setting."""
    for path in root.glob(f"runs/{task}/*/*/done.json"):
        done = json.loads(path.read_text())
        factor = COST.get(done["method"], 1.0)
        done["ledger"]["flops"] = int(2e13 * factor)
        done["ledger"]["seconds"]["train"] = 50.0 * factor * (1.2 if "yoto" in str(path) else 1.0)
        path.write_text(json.dumps(done))
    grid = {}
    for path in root.glob(f"records/{task}/fixed_grid/*.json"):
        head = json.loads(path.read_text())
        grid[head["seed"], head["setting"]] = head["cells"][0]
    settings = sorted({setting for _, setting in grid})
    for path in root.glob(f"records/{task}/warm_grid/*.json"):
        head = json.loads(path.read_text())
        first = grid[head["seed"], settings[len(settings) // 2]]
        if head["setting"] == settings[len(settings) // 2]:
            head["cells"] = [first]
        else:
            (old,) = root.glob(f"runs/{task}/warm_grid/{head['cells'][0]}")
            own = content_id([head["cells"], head["setting"]])
            done = json.loads((old / "done.json").read_text())
            new = root / "runs" / task / "warm_grid" / own
            new.mkdir(exist_ok=True)
            (new / "done.json").write_text(json.dumps({**done, "id": own, "after": first}))
            head["cells"] = [own]
        path.write_text(json.dumps(head))
