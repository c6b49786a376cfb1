"""Pickles that do something where they are loaded."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


class Payload:
    """A pickle that leaves a folder where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def payloads(mark: Path) -> Iterator[bytes]:
    """Pickles, and torch's two formats of them, of an object that does something."""
    for hostile in (Payload(mark), {"step": Payload(mark)}, [Payload(mark)]):
        yield pickle.dumps(hostile)
        for new in (True, False):
            file = io.BytesIO()
            torch.save(hostile, file, _use_new_zipfile_serialization=new)
            yield file.getvalue()
