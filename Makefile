# Cytovox. `make help` lists what there is. Works from a fresh clone: every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-cluster test-gpu lint bench clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: $(READY) ## Make the virtual environment in .venv with the pinned versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Cytovox needs Python 3.11 or newer; name one with make PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY) ## Train, test and predict on simulated cells, then measure two groups over time (11 minutes on 2 cores)
	$(BIN)/python -m cytovox.simulation --preset HeLa --seed 900001 --shape 64 128 128 --spacing 0.3 0.3 0.3 --out runs/demo_sample
	$(BIN)/python -m experiments.run experiments/configs/organelle_demo.yaml 'stages=[fit,test,predict]' 'predict.inputs=[runs/demo_sample/*.TCF]'
	for group in control LPS; do $(BIN)/python -m cytovox.simulation --preset RAW264.7 --seed 910001 910002 --time-lapse $$group --frames 3 --interval 120 --shape 64 160 160 --spacing 0.3 0.3 0.3 --out runs/demo_time_lapses || exit 1; done
	$(BIN)/python -m experiments.run experiments/configs/analyze.yaml name=analyze_demo 'inputs=[runs/demo_time_lapses/*.TCF]' 'groups=*-{group}.TCF'

# a process a core, one thread each; a file's tests stay together, since they share what they trained
SPREAD := -n auto --dist loadfile

test: $(READY) ## Run the tests (under 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) -m 'not slow and not cluster and not gpu' $(PYTEST)

test-all: $(READY) ## Run every test, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) -m 'not cluster and not gpu' $(PYTEST)

test-cluster: $(READY) ## Run what needs a cluster on a real SLURM of two nodes on this machine (root; slurm-wlm and munge)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster $(PYTEST)

test-gpu: $(READY) ## Run what needs a CUDA GPU; skipped with a reason where there is none
	$(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST)

lint: $(READY) ## Check style, types and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## Run the benchmarks; each prints a table and writes JSON
	@for script in benchmarks/[a-z]*.py; do echo "$$script"; $(BIN)/python $$script || exit 1; done

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
