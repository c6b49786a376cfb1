"""The fault campaign in its short form: nothing lost, double, wrong, or without a way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_short_campaign_ends_with_nothing_lost_double_or_wrong() -> None:
    """In a process of its own: it forks, and threads of other tests do not survive that."""
    command = [sys.executable, "-m", "tests.faults", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " all " in ended.stdout.replace("\nall", " all ")
