"""The templates of a report, in which no text can become markup.

    markdown("report.md", name=...)      every `{{ }}` is escaped for Markdown
    html("index.html", name=...)         and for HTML, attributes included

What is markup already is a `Markup`; a name that a template misses is an error.
"""

from __future__ import annotations

import base64
import functools
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bench.report.text import escape


def source(name: str) -> str:
    return (files("bench.report") / "templates" / name).read_text(encoding="utf-8")


def _markdown(value: Any) -> Any:
    return value if hasattr(value, "__html__") else escape(value)


@functools.cache
def _environment(html: bool) -> Environment:
    return Environment(
        loader=FunctionLoader(lambda name: source(name)),  # looked up anew, as a test needs
        autoescape=html,
        finalize=None if html else _markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def markdown(template: str, **content: Any) -> str:
    return _environment(False).get_template(template).render(content)


def html(template: str, **content: Any) -> str:
    return _environment(True).get_template(template).render(content)


def embedded(content: object) -> Markup:
    """JSON that no text in it can leave: without `<` there is neither an end tag nor a comment.

    ValueError for NaN and infinity, which JSON lacks.
    """
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
