"""Programs that measure speed: `python -m benchmarks.NAME --help`."""
