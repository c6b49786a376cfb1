"""What `demo` and `export` do, from the options of `bench/cli.py`."""

from __future__ import annotations

import webbrowser
from argparse import Namespace
from pathlib import Path

from bench.files import printable
from bench.live.networks import ZOO, Exhibit, catalogue
from bench.run import runner

USUAL = Path("results")


def demo(options: Namespace) -> int:
    """Serve the page until it is stopped."""
    from bench.live.answers import Answers
    from bench.live.server import Server

    exhibits = exhibited(options.folder, options.task, options.seed)
    answers = Answers(exhibits, runner.choose_device(options.device), options.side)
    try:
        server = Server(answers, options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise ValueError(
            f"{where} cannot be had ({error}): give another --host or --port"
        ) from None
    with server:
        for each in exhibits:
            methods = ", ".join(printable(label) for label in each.methods)
            print(f"{printable(each.task.name)} ({printable(each.preset)}): {methods}")
        print(f"\nopen {server.address}\nCtrl-C ends it; nothing is stored", flush=True)
        if options.open:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended")
    return 0


def exhibited(folder: str | None, task: str | None, seed: int | None) -> list[Exhibit]:
    """The trained networks of a results folder; where none is named, of `results` and of those
    that ship with the suite. A task alone may be named, too. ValueError where there are none."""
    from bench.registry import DEFAULT_TASKS, TASKS

    if folder and not task and not Path(folder).is_dir() and (folder in TASKS or ".py" in folder):
        folder, task = None, folder
    exhibits: list[Exhibit] = []
    reasons = []
    if folder:
        exhibits = catalogue(Path(folder), task or "", seed)
    for root in () if folder else (USUAL, ZOO):
        if (root / "runs").is_dir():
            try:
                exhibits += catalogue(root, task or "", seed)
            except ValueError as error:
                reasons.append(str(error))
    if not exhibits:
        raise ValueError(
            "\n".join(reasons)
            or f"there are no trained networks in {USUAL}, and {ZOO} is missing: `run` first, or "
            "name a results folder"
        )
    known = {name: place for place, name in enumerate(dict.fromkeys((*DEFAULT_TASKS, *TASKS)))}
    return sorted(exhibits, key=lambda each: known.get(each.task.name, -1))
