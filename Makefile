# `make audit` and `make test` need nothing but Python and make: they set up .venv first.
# Another Python: make PYTHON=python3.12 test. Options of the audit: make audit ARGS='faces=lfw'.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS ?= cpu,recognizer,dlib,tune,dev
TORCH ?= torch
ARGS ?=
PYTEST_ARGS ?=
GROUPED := --dist loadgroup --no-loadscope-reorder --durations=15

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0
# Ray starts dozens of processes: without compiled modules each takes seconds of CPU more.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup audit test test-fast test-nightly test-vision pytest lint docs format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## install into .venv what everything else needs
	@echo 'Ready: $(VENV)'

audit: $(STAMP) ## the full audit, small: synthetic people, the shipped CLDM, a local Ray
	$(BIN)/python jobs/full_audit.py $(ARGS)

# Groups are those of tests/conftest.py: what shares a fixture or a file runs in one process. Two local
# Rays stand beside each other in the second line, each with two logical CPUs.
test: lint test-fast ## style, types and tests: what takes seconds on all cores, then what starts Ray
	$(BIN)/pytest -n 2 $(GROUPED) -m 'slow and not nightly' $(PYTEST_ARGS)

test-fast: $(STAMP) ## the tests that take seconds
	$(BIN)/pytest -n auto $(GROUPED) -m 'not slow' $(PYTEST_ARGS)

test-nightly: test test-vision ## all that, 20 kills, elastic clusters, benchmarks, torchvision
	CLDMRAY_KILLS=4 $(BIN)/pytest -m 'nightly or kills' $(PYTEST_ARGS)

# torchvision goes with the torch build that has no local version, such as +cpu: hence the ===.
test-vision: ## the tests that need torchvision, in an environment of their own of 6 GB
	@$(MAKE) --no-print-directory pytest VENV=$(VENV)/vision EXTRAS=cpu,controlnet,backbones,dev \
	    TORCH="torch===$$(sed -n 's/^torch==//p' constraints.txt)" \
	    PYTEST_ARGS='tests/conditions/test_controlnet_aux.py tests/attackers/nn/test_backbone_packages.py'

pytest: $(STAMP)
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP) ## the documentation site, in docs/_build/html
	$(BIN)/sphinx-build -W -q docs docs/_build/html

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and build leftovers; runs/ and mlflow.db stay
	rm -rf $(VENV) build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find cldmray jobs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo 'cldmray needs Python 3.11 or newer, "$(PYTHON)" is not: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo '"$(PYTHON)" cannot make virtual environments: install its venv package (Debian: python3-venv)' >&2; exit 1; }
	@echo 'Installing into $(VENV): a few minutes and some gigabytes, once'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt '$(TORCH)' -e '.[$(EXTRAS)]'
	@touch $@
