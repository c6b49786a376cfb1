"""A hook of MkDocs: files of the repository become part of the site, at the places they have there.

Their own links then lead where they led, with three exceptions, which are written anew: one to the
README (its answer is a page here), one to a folder (a list of its files), and one that leaves
`docs/` (which is the root of the site).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
TAKEN = (
    *("CHANGELOG.md", "results/*.md", "results/reference/**/*", "results/published/*"),
    *("zoo/README.md", "zoo/*.csv", "zoo/demo.jpg", "benchmarks/README.md"),
    "benchmarks/gpu/README.md",
)
TABLES = PurePosixPath("results/reference")
INDEX = "index.md"
LINK = re.compile(r"(\]\(|(?:src|href)=\")([^)\"#\s]+)")


def taken() -> dict[str, Path]:
    """The files, by their places."""
    paths = sorted(path for pattern in TAKEN for path in ROOT.glob(pattern) if path.is_file())
    return {path.relative_to(ROOT).as_posix(): path for path in paths}


def folders(places: list[str]) -> set[str]:
    """Those below `results/` that a page can link, and that have no page of their own."""
    above = {str(folder) for place in places for folder in PurePosixPath(place).parents}
    return {folder for folder in above if PurePosixPath(folder).is_relative_to("results")} - {
        "results"
    }


def on_files(files: Files, config: Any) -> Files:
    places = taken()
    kept = InclusionLevel.NOT_IN_NAV  # or in it: the navigation names those it has
    for place in places:
        directory = config.use_directory_urls
        files.append(File(place, str(ROOT), config.site_dir, directory, inclusion=kept))
    for folder in folders(list(places)):
        content = "\n".join(listing(folder, list(places)))
        files.append(File.generated(config, f"{folder}/{INDEX}", content=content, inclusion=kept))
    return files


def listing(folder: str, places: list[str]) -> Iterator[str]:
    """A page that lists a folder."""
    yield f"# {folder}\n"
    start = f"{folder}/"
    inside = [place.removeprefix(start) for place in places if place.startswith(start)]
    for name in sorted({place.partition("/")[0] for place in inside}):
        here = name in inside
        yield f"- [{name}{'' if here else '/'}]({name if here else f'{name}/{INDEX}'})"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    place = PurePosixPath(page.file.src_uri)
    if place.is_relative_to(TABLES) and place.name != "PREDECLARED.md":
        page.meta["search"] = {"exclude": True}  # they would drown the pages that explain them
        if place.name != INDEX:
            title = f"# {place.stem}: {place.parent.relative_to(TABLES)}"
            markdown = "\n\n".join([title, _beside(place), markdown])
    known = folders(list(taken()))
    return LINK.sub(lambda match: match[1] + target(match[2], place, known), markdown)


def _beside(place: PurePosixPath) -> str:
    """What stands above a committed table."""
    numbers = place.with_suffix(".csv")
    csv = f"[as CSV]({numbers.name}), " if (ROOT / numbers).exists() else ""
    return f"{csv}[the other tables of this run]({INDEX}), [how to read it](/report.md)"


def target(link: str, place: PurePosixPath, known: set[str]) -> str:
    """The place that a link of a page leads to, here."""
    up = "../" * (len(place.parts) - 1)
    if link.startswith("/"):  # ours
        return up + link[1:]
    if len(place.parts) == 1:
        link = link.removeprefix("../")
    leads_to = _joined(place.parent, link)
    if leads_to == "README.md":
        return f"{up}answer.md"
    return f"{link.rstrip('/')}/{INDEX}" if leads_to in known else link


def _joined(folder: PurePosixPath, link: str) -> str:
    parts: list[str] = []
    for part in (*folder.parts, *PurePosixPath(link).parts):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)
