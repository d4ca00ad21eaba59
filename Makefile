# Every target creates the virtual environment first. Only Python and make have to be installed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs
# setuptools prints a general note about every editable installation. Python compiles a module when it is first imported;
# compiling all of them takes longer than the rest of the installation.
INSTALL := PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install --quiet --no-compile
ARGS ?=
DATA ?= digits
# Every test worker and every child process of a test imports the package: cache its byte code.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: search test test-fast lint lint-windows format docs dist bench bench-full clean
.DEFAULT_GOAL := search

$(INSTALLED): pyproject.toml setup.cfg
	@echo "Installing NASES with PyTorch into $(VENV), once: 5.8 GB with CUDA libraries, 1.2 GB with its CPU build (see docs/install.md)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable .
	touch $@

$(READY): pyproject.toml setup.cfg
	@echo "Installing NASES with PyTorch, the test tools and all extras into $(VENV), once: 6.6 GB with CUDA libraries"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable '.[dev]'
	touch $(INSTALLED) $@

$(DOCS_READY): $(INSTALLED)
	@echo "Installing MkDocs into $(VENV), once: 0.1 GB"
	$(INSTALL) --editable '.[docs]'
	touch $@

# The default target: an architecture search on scikit-learn's digits, or on your images: make search DATA=my_images
# List the options: make search ARGS="--help"
search: $(INSTALLED)
	$(BIN)/nases search $(if $(DATA),"$(DATA)") $(ARGS)

# Three processes keep two cores busy, because many tests wait for other processes.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(ARGS)

# The tests of the library without its processes: under a minute, also on Windows.
FAST_TESTS := tests/networks tests/search_spaces tests/embedding tests/training tests/test_visualization.py

test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST_TESTS) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/mypy && ln -sfn ../../agents build/mypy/nases_agents
	$(BIN)/mypy

# The types on Windows, where some modules and functions of Python are missing.
lint-windows: $(READY)
	mkdir -p build/mypy && ln -sfn ../../agents build/mypy/nases_agents
	$(BIN)/mypy --platform win32 nases_env build/mypy/nases_agents

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a web site in build/site.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Build the sdist and the wheel, install the wheel into a new environment, and run the command and an agent from there.
dist: $(READY)
	rm -rf build/lib dist build/dist-test
	$(BIN)/python -m build
	$(PYTHON) -m venv build/dist-test
	build/dist-test/bin/python -m pip install --quiet dist/*.whl
	cd build/dist-test && bin/nases --version && bin/python -m nases_agents.random_search --env-id NASES-Synthetic-v0 --budget 3 --run-dir run && bin/nases draw run/best.json --output best.svg

# Every benchmark prints a table and writes its measurements to benchmarks/results/ as JSON; see benchmarks/README.md.
QUICK_BENCHMARKS := env_overhead reward_signal throughput
FULL_BENCHMARKS := $(QUICK_BENCHMARKS) execution fault_injection search_then_train search_quality pareto_quality rungs latency accel_surrogate embedding_quality

bench: $(READY)
	for name in $(QUICK_BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --output benchmarks/results/$$name.json || exit 1; done

bench-full: $(READY)
	for name in $(FULL_BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --output benchmarks/results/$$name.json || exit 1; done

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
