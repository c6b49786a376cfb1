"""What `demo` and `export` do, from the options of `bench/cli.py`.

Imports are late: `--help` needs no torch.
"""

from __future__ import annotations

import sys
import webbrowser
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.files import printable, printable_lines

if TYPE_CHECKING:
    from bench.live.networks import Exhibit


def demo(options: Namespace) -> int:
    """Serve the page until it is stopped."""
    from bench.live.answers import Answers
    from bench.live.networks import exhibited
    from bench.live.server import Server
    from bench.run import runner

    folder, task = options.folder, options.task
    if folder and not task and not Path(folder).exists() and "/" not in folder:
        folder, task = None, folder  # a task alone
    exhibits = exhibited(folder, task or "", options.seed)
    if options.static:
        return _written(exhibits, Path(options.static))
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


def _written(exhibits: list[Exhibit], folder: Path) -> int:
    from bench.live.static import static

    static(exhibits, folder, lambda line: print(printable_lines(line), flush=True))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"\n{printable(folder)}: {size / 1e6:.1f} MB for any static host; to look at it:")
    print(f"  python -m http.server --bind 127.0.0.1 --directory {printable(folder)}")
    return 0


def export(options: Namespace) -> int:
    from bench.live.check import NotExported
    from bench.live.pieces import require

    require()  # before anything else is loaded or trained for
    from bench.live.export import export

    try:
        folder = export(
            options.task,
            options.method,
            root=Path(options.source) if options.source else None,
            at=options.at,
            preset=options.preset,
            seed=options.seed,
            out=Path(options.out) if options.out else None,
            say=lambda line: print(printable_lines(line), flush=True),
        )
    except NotExported as error:
        print(f"refused: {printable_lines(error)}; nothing was written", file=sys.stderr)
        return 1
    print(f"\nexported: {printable_lines(folder)}")
    return 0
