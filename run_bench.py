"""Entry of the benchmark. `python run_bench.py` runs the default comparison; `--help` says more."""

# PYTHON_ARGCOMPLETE_OK: a shell may ask for completions (bench/completion.py)
from bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
