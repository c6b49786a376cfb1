"""Entry of the benchmark. `python run_bench.py` runs the default comparison; `--help` says more."""

from bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
