# make demo    generate a population of networks, learn from their weights, write a page about it
# make test    run the tests
# make lint    format check, lint, types, import rule
# make clean   remove what the targets above made (the virtual environment too)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# Data that some tests use, where it is at hand.
ifneq ($(wildcard ../shared/data),)
export ZOO_DATA ?= $(abspath ../shared/data)
endif

.PHONY: demo test lint clean

# One thread: operators this small gain little from a second, and crawl when something else runs.
demo: export OMP_NUM_THREADS = 1
demo: $(READY)
	$(BIN)/python scripts/demo.py --out demo

# Two test processes, one thread each: networks this small gain nothing from threads in an operator.
test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
