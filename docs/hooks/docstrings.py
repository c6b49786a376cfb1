"""Docstrings of the suite as Markdown. Ours say what a field or an argument means in plain
paragraphs, `name, other: what they are`; here each becomes an item of a list, and an example with
`>>>` a block of code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*)", re.MULTILINE)


def meanings(text: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """The text before the first field, and what is said of each of `names`.

    >>> meanings("Two. low, high: the range. crop: its side.", ("low", "high", "crop"))
    ('Two.', {'low, high': 'the range.', 'crop': 'its side.'})
    """
    if not names:
        return text, {}
    one = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    begins = re.compile(rf"(?:^|(?<=\n)|(?<=[.;] ))[ ]*`?((?:{one})(?:`?, `?(?:{one}))*)`?: ")
    before, *parts = begins.split(text)
    said = {key.replace("`", ""): value for key, value in zip(parts[::2], parts[1::2], strict=True)}
    return before.strip(), {key: " ".join(value.split()) for key, value in said.items()}


def as_markdown(text: str, names: Collection[str]) -> str:
    """A docstring with its fields as a list and its examples as code."""
    text = inspect.cleandoc(text)
    examples = EXAMPLE.findall(text)
    text = EXAMPLE.sub("\n", text)
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        before, said = meanings(paragraph, names)
        paragraphs += [before] if before else []
        if said:
            paragraphs.append("\n".join(f"- `{name}`: {what}" for name, what in said.items()))
    paragraphs += [f"```pycon\n{example.strip()}\n```" for example in examples]
    return "\n\n".join(paragraphs)


class Plain(griffe.Extension):
    """Of what mkdocstrings reads."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        self._write(func, [parameter.name for parameter in func.parameters])

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        self._write(cls, [*cls.members])

    def _write(self, of: griffe.Object, names: Collection[str]) -> None:
        if of.docstring is not None:
            of.docstring.value = as_markdown(of.docstring.value, names)
