# Python 3.11 or later: `make demo PYTHON=python3.12` takes another than python3; PIP_ARGS goes to every pip install.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=

bin := $(VENV)/bin
run := runs/digits
# Python compiles what is imported, when it is: a small part of what is installed, all of which takes minutes.
pip := $(bin)/python -m pip --disable-pip-version-check install --no-compile -c constraints.txt $(PIP_ARGS)

DEMO := $(bin)/anydit train digits --out $(run) && $(bin)/anydit evaluate $(run)
DEMO_EXTRAS := digits

benchmarks := $(shell grep -ls __main__ benchmarks/*.py)
examples := $(wildcard examples/*.py)

# In the order of tests/conftest.py, which knows what takes long; xdist would go by the number of tests.
parallel := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Set, it makes each of the processes that tests start compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo install test lint types check cover imports examples test-faults test-slow format docs bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp ## install, train on handwritten digits, report: 5 to 15 minutes on two CPU cores
	$(DEMO)

install: $(VENV)/dev.stamp ## make .venv with all that development needs (6 GB)

test: $(VENV)/dev.stamp ## everything that CI checks
	$(MAKE) -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint types docs examples imports
	$(MAKE) check

lint: $(VENV)/dev.stamp ## style, format and layers
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/lint-imports --no-logo

types: $(VENV)/dev.stamp ## the types, with pyright
	$(bin)/pyright --warnings

check: $(VENV)/dev.stamp ## the tests, with the branches that they cover of what takes in files, options and shapes
	$(bin)/python -m pytest $(parallel) --cov --cov-report=term

cover: $(VENV)/dev.stamp ## the tests, with the branches that they cover of everything, which takes half as long again
	$(bin)/python -m pytest $(parallel) --cov=anydit --cov-report=term

imports: $(VENV)/dev.stamp ## import all tests, so that their processes find compiled what they import
	@found=$$($(bin)/python -m pytest --collect-only -q -q 2>&1) || { echo "$$found"; exit 1; }

examples: $(VENV)/dev.stamp ## run each of examples/
	set -e; for file in $(examples); do echo "$$file"; $(bin)/python "$$file"; done

test-faults: $(VENV)/dev.stamp ## only the tests that break something on purpose
	$(bin)/python -m pytest -m fault

test-slow: $(VENV)/dev.stamp ## only the tests that take minutes each
	$(bin)/python -m pytest -m slow

format: $(VENV)/dev.stamp ## mend style and format where a tool can
	$(bin)/ruff check --fix
	$(bin)/ruff format

docs: $(VENV)/dev.stamp ## build the documentation into site/; a warning is an error
	$(bin)/zensical build --clean --strict

bench: $(VENV)/dev.stamp ## run each of benchmarks/ and write docs/results/: hours
	set -e; for file in $(benchmarks); do echo "$$file"; $(bin)/python "$$file"; done

clean: ## remove what make made, but not runs/
	rm -rf $(VENV) site build dist .cache .coverage .import_linter_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# A stamp says that what these two files ask for is installed, so that it is asked for once.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(pip) -e ".[$(DEMO_EXTRAS)]"
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(pip) -e ".[dev]"
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or later is needed, this is {sys.version}; make ... PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
