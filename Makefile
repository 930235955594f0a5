# Each target makes its own virtual environment and installs everything.
#   make demo    watch four simulated hospitals train one model (about two minutes)
#   make test    the tests        make lint   style, types, layers
#   make bench   the benchmarks   make clean  remove the environment
#
# PYTHON chooses the interpreter (3.11 to 3.13), TORCH the PyTorch build, e.g.
#   make demo TORCH="torch==2.13.0 --index-url <a CUDA index>"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint bench clean

install: $(STAMP)

# PyTorch first and alone: as a dependency of another package pip may choose a build of gigabytes.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

demo: install
	$(BIN)/fedbcs-secure demo

test: install
	$(BIN)/python -m pytest -q $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=protocols $(BIN)/lint-imports

bench: install
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file --json || exit 1; done

clean:
	rm -rf $(VENV)
