"""The live page as a folder for any static host: the browser runs the networks itself, and nothing
leaves it.

    python run_bench.py demo --static DIR
    python -m http.server --directory DIR      to look at it; as a file it may not load networks

The page, the networks as ONNX (checked as `export` checks them: the one that is told its
coefficients, and the grid's at their settings), a few test examples, and ONNX Runtime for browsers.
Measures are those that need nothing else than the network; nothing is entropy coded.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from bench.files import printable, sealed, write_atomic
from bench.live.check import NotExported, Source
from bench.live.networks import Entry, Exhibit
from bench.live.pieces import require, write
from bench.live.places import replace, replaceable
from bench.live.rooms import Room, first_shown, within
from bench.live.server import PAGE, SHARED
from bench.pictures.downloads import get
from bench.run.work import encode_png

RUNTIME = "onnxruntime-web"
LISTING = "networks.json"
FORMAT = "yoto-bench live page 1"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; media-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'"
)
BACKENDS = ("server.js", "static.js")
META = '<meta http-equiv="Content-Security-Policy" content="{}">\n'
EXAMPLES, SIDE = 4, 512  # test examples that go along, and their longer side at most


def static(exhibits: list[Exhibit], folder: Path, say: Callable[[str], None]) -> None:
    """Write the page into `folder`, which is new, empty, or an earlier page of ours. ValueError
    where it holds anything else, or no task has pictures; NotExported where a network cannot be
    exported, or does not compute what PyTorch does."""
    require()
    earlier = replaceable(folder, LISTING, FORMAT)
    runtime = get(RUNTIME)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        listed: list[dict[str, Any]] = []
        for exhibit in exhibits:
            described = _exhibit(exhibit, len(listed), made, say)
            if described is not None:
                listed.append(described)
        if not listed:
            raise ValueError("none of these tasks shows pictures, as a page without a server needs")
        _page(made, runtime)
        files = sorted(path.name for path in made.iterdir())
        content = {"format": FORMAT, "files": files, "exhibits": listed}
        write_atomic(made / LISTING, sealed(content))
        replace(made, folder, earlier, LISTING)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _page(folder: Path, runtime: Path) -> None:
    page = (PAGE / "demo.html").read_text(encoding="utf-8")
    page = page.replace("<head>\n", "<head>\n" + META.format(POLICY), 1)
    write_atomic(folder / "index.html", page)
    for source, name in (
        (PAGE / "demo.css", "demo.css"),
        *((path, path.name) for path in PAGE.glob("*.js") if path.name not in BACKENDS),
        (PAGE / "static.js", "backend.js"),
        (SHARED / "page.css", "page.css"),
        (SHARED / "chart.js", "chart.js"),
    ):
        shutil.copyfile(source, folder / name)
    with safe_open(runtime, framework="numpy") as parts:
        for name in parts.keys():  # noqa: SIM118  (no dictionary)
            write_atomic(folder / name, parts.get_tensor(name).tobytes())


def _exhibit(
    exhibit: Exhibit, place: int, folder: Path, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """A task's networks and examples as files in `folder`, and what the page is told of them."""
    room, task = Room(exhibit=exhibit), exhibit.task
    shown = [each for each in exhibit.methods.values() if each is not exhibit.reference]
    entry = min(shown or exhibit.methods.values(), key=first_shown)
    name = f"{task.name}-{place}"
    if entry is not exhibit.reference and entry.whole is None:
        say(f"{task.name} is left out: {entry.label} has no one network told its coefficients")
        return None
    try:
        public = _public(exhibit).examples[:EXAMPLES]
    except (ValueError, OSError) as error:
        say(f"{task.name} is left out: the suite has no examples of it ({error})")
        return None
    try:
        own = _network(f"{name}-network", entry, folder, say)
    except NotExported as error:
        say(f"{task.name} is left out: {error}")
        return None
    if own is None:
        say(f"{task.name} is left out: it shows no picture that its network alone makes")
        return None
    described = room.described()
    label = printable(entry.label)
    described["methods"] = [each for each in described["methods"] if each["label"] == label]
    fixed = []
    if (grid := exhibit.reference) is not None:
        for number, setting in enumerate(grid.settings):
            fixed.append(_network(f"{name}-fixed-{number}", grid, folder, say, setting))
    described["measures"] = {
        key: value for key, value in described["measures"].items() if key in own["outputs"]
    }
    estimates = {m.estimates: name for name, m in task.measures.items() if m.estimates}
    fronts = [[estimates.get(name, name) for name in front] for front in described["fronts"]]
    described["fronts"] = [front for front in fronts if set(front) <= described["measures"].keys()]
    examples = []
    for number, (title, batch) in enumerate(public):
        picture = room.showing.original(batch)
        small = within(picture[None], SIDE**2, SIDE)[0]
        file = f"{name}-example-{number}.png"
        write_atomic(folder / file, encode_png(small) or b"")
        examples.append({"name": printable(title), "text": "", "file": file})
    return {**described, "exhibit": place, "examples": examples, "own": own, "fixed": fixed}


def _public(exhibit: Exhibit) -> Room:
    """A room with the examples that come with the suite: what lies at places that a folder names is
    nobody's to publish."""
    task = exhibit.task
    public = dataclasses.replace(task, **dict.fromkeys(task.surroundings(), ""))  # type: ignore[type-var]
    return Room(exhibit=dataclasses.replace(exhibit, task=public))


def _network(
    stem: str, entry: Entry, folder: Path, say: Callable[[str], None], setting: Any = None
) -> dict[str, Any] | None:
    """One network's files, folded at a setting where one is given: what it takes and gives."""
    showing, space = entry.task.showing(), entry.task.space
    if setting is None and entry.whole is not None:
        network = entry.network(entry.whole)
        rows = not getattr(entry.method, "together", False)
        source = Source.of(network, space, rows)
    else:
        at = setting or space.grid(1)[0]
        source = Source(entry.at(*at), space, setting=at)
    live = showing.live(source.model)
    if live is None:
        return None
    written = write(stem, live, source, folder, programs=False)
    shape = written.about["inputs"][0]["shape"]
    fixed = [size for size in shape[2:] if isinstance(size, int)]
    about = {
        "file": written.files[0].name,
        "bytes": written.files[0].stat().st_size,
        "inputs": [each["name"] for each in written.about["inputs"]],
        "outputs": list(live.outputs),
        "multiple": max(live.multiples.values(), default=1),
        "size": fixed if len(fixed) == 2 else None,
    }
    decoder = showing.parts(source.model).get("decoder") if "latents" in live.outputs else None
    if decoder is not None:
        second = write(f"{stem}-decoder", decoder, source, folder, programs=False)
        about |= {"decoder": second.files[0].name}
    worst = max(written.errors[name] for name in live.outputs[:1])
    say(f"{about['file']}: {about['bytes']:,} bytes, largest error of the picture {worst:.2g}")
    return about
