"""The documents: whole, built strictly, and fetching nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from bench import HOMES
from bench.cli import COMMANDS
from bench.registry import METHODS, TASKS, method, task_class

ROOT = Path(__file__).parent.parent
for library in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(library, reason="pip install -e '.[docs]'")
yaml = importlib.import_module("yaml")
catalogue, docstrings, repository_files = map(
    importlib.import_module, ("catalogue", "docstrings", "repository_files")
)
pytestmark = pytest.mark.xdist_group("docs")
ADDRESS = re.compile(r'(?:href|src)="([^"]*)"')
FETCHED = re.compile(
    r'<(?:script|img|iframe|source|video)[^>]* src="(https?:)?//'
    r'|<link[^>]*rel="(?:stylesheet|preconnect|preload|icon)"[^>]*href="(https?:)?//'
)
FROM_A_SHEET = re.compile(r"(url\(|@import)\s*['\"]?(https?:)?//")


def mkdocs(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = mkdocs(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_has_what_its_pages_lead_to(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 100  # the committed tables are pages, too
    dead = set()
    for page in pages:
        for address in ADDRESS.findall(page.read_text("utf-8")):
            place = address.partition("#")[0]
            if place and ":" not in place and not (page.parent / place).exists():
                dead.add((str(page.relative_to(site)), address))
    assert not dead


def test_a_page_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not FETCHED.search(page.read_text("utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not FROM_A_SHEET.search(sheet.read_text("utf-8")), sheet


def test_lists_are_made_from_the_code(site: Path) -> None:
    def words(page: str) -> str:
        return re.sub(r"<[^>]*>", "", (site / page).read_text("utf-8"))

    commands, api = words("commands.html"), (site / "api.html").read_text("utf-8")
    for name, (_, _, options) in COMMANDS.items():
        assert f'id="{name}"' in (site / "commands.html").read_text("utf-8")
        assert all(option[0] in commands for option in options)
    for name in (*METHODS, *TASKS):
        page = "methods.html" if name in METHODS else "tasks.html"
        assert f'id="{name}"' in (site / page).read_text("utf-8")
    constants = {name for name in HOMES if f"<code>{name}</code>" in api}
    directives = {name for name, home in HOMES.items() if f'id="{home}.{name}"' in api}
    assert constants | directives == set(HOMES)
    for page in site.glob("*.html"):
        assert "<!-- from the code" not in page.read_text("utf-8"), page


def test_the_docstrings_say_what_each_field_is() -> None:
    silent = [
        f"{kind.__name__}.{field.name}"
        for kind in [*map(task_class, TASKS), *(type(method(name)) for name in METHODS)]
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name != "training" and not catalogue.said_of(kind).get(field.name)
    ]
    assert not silent
    training = catalogue.said_of(catalogue.Training)
    assert all(field.name in training for field in dataclasses.fields(catalogue.Training))


def test_fields_are_read_off_a_docstring() -> None:
    assert doctest.testmod(docstrings) == (0, 1)
    text = "A box.\n\nlow, high: ends of\n    it. crop: side: in pixels.\n\n>>> 1 + 1\n2\n"
    assert docstrings.as_markdown(text, ("low", "high", "crop")) == (
        "A box.\n\n- `low, high`: ends of it.\n- `crop`: side: in pixels.\n\n"
        "```pycon\n>>> 1 + 1\n2\n```"
    )
    assert docstrings.as_markdown("It is so: low.", ("low",)) == "It is so: low."


@pytest.mark.parametrize(
    ("link", "page", "leads_to"),
    [
        ("../results/EVIDENCE.md", "gallery.md", "results/EVIDENCE.md"),
        ("../results/reference/a", "gallery.md", "results/reference/a/index.md"),
        ("reference/a", "results/EVIDENCE.md", "reference/a/index.md"),
        ("../README.md", "results/EVIDENCE.md", "../answer.md"),
        ("README.md", "results/EVIDENCE.md", "README.md"),
        ("https://example.org/", "results/EVIDENCE.md", "https://example.org/"),
        ("report.md", "gallery.md", "report.md"),
    ],
)
def test_links_to_the_repository_lead_into_the_site(link: str, page: str, leads_to: str) -> None:
    known = {"results/reference/a"}
    assert repository_files.target(link, PurePosixPath(page), known) == leads_to


@pytest.mark.parametrize("link", ["gone.md", "index.md#gone", "../outside.md", "/index.html"])
def test_a_broken_link_is_an_error(link: str, tmp_path: Path) -> None:
    """With what the configuration says of links, and a page that is whole but for one."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    small = {"site_name": "x", "theme": {"name": "material", "font": False}, "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.dump({**small, "validation": config["validation"]}))
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "index.md"
    page.write_text("# One\n\n[here](index.md#one)\n")
    whole = mkdocs(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert whole.returncode == 0, whole.stderr
    page.write_text(f"# One\n\n[there]({link})\n")
    assert mkdocs(tmp_path / "mkdocs.yml", tmp_path / "site").returncode != 0
