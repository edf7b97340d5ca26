# `make demo` and `make test` are all a newcomer needs; both make the environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SECONDS_RUN ?= 60
KILLS ?= 300
TILED_KILLS ?= $(if $(filter command line environment,$(origin KILLS)),$(KILLS),50)

.PHONY: help install demo test test-long lint types layers check bench torture torture-archive clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/.made:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"xbat_live needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}; try: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# Compiled modules make every later start seconds faster, so they are wanted here even where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE :=
PIP = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing xbat_live into $(VENV) (once, a minute or two)"
	$(PIP) '.[frames]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing test and development tools into $(VENV) (once)"
	$(PIP) '.[dev]'
	touch $@

install: $(VENV)/.dev   ## make .venv and install the project with its tools

demo: $(VENV)/.run   ## simulated beamline, Tiled and a dose-aware operando run (about two minutes)
	$(BIN)/xbat demo --seconds $(SECONDS_RUN)

# One thread of the BLAS for each process: several on two cores wait for one another (the spectra's tests took four times the CPU).
test test-long: export OPENBLAS_NUM_THREADS ?= 1

test: install    ## all tests, in four processes, those against simulated hardware first (it is waited for)
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: install   ## what takes longest: replay, exchange, faults of the archive, exposure strategies, microscope, energy sweeps against the IOCs
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

lint: install    ## style
	$(BIN)/ruff check xbat_live tests benchmarks docs
	$(BIN)/ruff format --check xbat_live tests benchmarks docs

types: install   ## type checker
	$(BIN)/mypy

layers: install  ## the architecture as a test
	$(BIN)/lint-imports

check: lint types layers test   ## everything that has to hold before a change lands

bench: install   ## benchmarks; prints figures beside a reference of the same run
	for b in benchmarks/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

torture: install ## kill a run KILLS times at random moments; the ledger must hold what the sample got (about half an hour)
	PYTHONPATH=tests/system $(BIN)/python tests/system/torture.py --kills $(KILLS)

torture-archive: install ## kill Tiled KILLS (50) times at random moments of runs; every document and frame must be there once (a quarter of an hour)
	PYTHONPATH=tests/system $(BIN)/python tests/system/torture_archive.py --kills $(TILED_KILLS)

clean:           ## remove what the project made
	rm -rf $(VENV) build dist *.egg-info xbat-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
