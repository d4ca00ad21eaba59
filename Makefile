# Every target makes its own virtual environment first; nothing else needs to be installed but Python and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: search test lint format bench clean
.DEFAULT_GOAL := search

$(READY): pyproject.toml setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The main job: an architecture search on scikit-learn's digits. Other options: make search ARGS="--help"
search: $(READY)
	$(BIN)/python agents/reinforce.py $(ARGS)

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/mypy && ln -sfn ../../agents build/mypy/nases_agents
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every benchmark prints a table and writes its figures to benchmarks/results/ as JSON.
bench: $(READY)
	for script in benchmarks/*.py; do $(BIN)/python $$script --output benchmarks/results/$$(basename $$script .py).json || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
