# Each target makes its own virtual environment and installs everything.
#   make demo    watch four simulated hospitals train one model (about two minutes)
#   make test    the tests        make lint   style, types, layers
#   make bench   the benchmarks   make fuzz   every decoder for FUZZ_SECONDS=600
#   make clean   remove the environments
#
# PYTHON chooses the interpreter (3.11 to 3.13), TORCH the PyTorch build, e.g.
#   make demo TORCH="torch==2.13.0 --index-url <a CUDA index>"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_VENV ?= .venv-bench
FUZZ_VENV ?= .venv-fuzz
FUZZ_SECONDS ?= 600
# Processes for the tests; auto: one a core.
WORKERS ?= auto

.PHONY: install demo test lint bench fuzz clean

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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=protocols $(BIN)/lint-imports

# Environments of their own: the peers and the fuzzer pin what the toolkit does not.
$(BENCH_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(BENCH_VENV)/bin/python -m pip install --quiet $(TORCH)
	$(BENCH_VENV)/bin/python -m pip install --quiet --editable '.[bench]'
	touch $@

bench: $(BENCH_VENV)/.installed
	@for file in benchmarks/[a-z]*.py; do \
	  echo "== $$file"; $(BENCH_VENV)/bin/python $$file --json $(ARGS) || exit 1; done

$(FUZZ_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(FUZZ_VENV)/bin/python -m pip install --quiet 'atheris>=3,<4' 'numpy>=2,<3' \
	  'cryptography>=44,<51' 'tenseal>=0.3.18,<0.4'
	touch $@

fuzz: $(FUZZ_VENV)/.installed
	PYTHONPATH=protocols $(FUZZ_VENV)/bin/python tests/protocols/fuzz/fuzz.py --seconds $(FUZZ_SECONDS) \
	  --log fuzz.log --findings fuzz-findings $(ARGS) 2>fuzz.err || { tail -5 fuzz.err; exit 1; }

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(FUZZ_VENV)
