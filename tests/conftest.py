"""Shared fixtures. `pytest --task ./mytask.py` runs the contract tests over a user's file too."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported, and for the programs that tests start: several tests run at a time, and
# threads that wait busily for one another on cores that others use are several times as slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from bench.registry import METHODS, TASKS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--task", action="append", default=[], help="a task file to test")
    parser.addoption("--method", action="append", default=[], help="a method file to test")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "task_name" in metafunc.fixturenames:
        files = [str(Path(file).resolve()) for file in metafunc.config.getoption("--task")]
        metafunc.parametrize("task_name", [*TASKS, *files])
    if "method_name" in metafunc.fixturenames:
        files = [str(Path(file).resolve()) for file in metafunc.config.getoption("--method")]
        metafunc.parametrize("method_name", [*METHODS, *files])


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
