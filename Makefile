.DEFAULT_GOAL := help
.PHONY: help install run test lint docs ci clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install:  ## install the suite with everything its tests need
	pip install -e '.[test]'

run:  ## the default comparison; minutes on two CPU cores
	python run_bench.py

test:  ## all tests
	pytest

lint:  ## lint, format check and types
	ruff check .
	ruff format --check .
	mypy

docs:  ## these pages as a site, in build/site; a broken link is an error (pip install -e '.[docs]')
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

ci:  ## what continuous integration does, in a fresh environment (6 GB of temporary space)
	.ci/run

clean:  ## remove caches (results are left alone)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
