"""Programs that measure the suite itself; `python -m benchmarks.NAME` runs one."""
