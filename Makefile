# What can be done here. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Without stored bytecode every process starts two times slower, and Penstock is made of processes.
unexport PYTHONDONTWRITEBYTECODE
# Tests with real processes wait more than they work: one more at a time than there are cores, at most 4.
AT_ONCE = $(shell $(BIN)/python -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")
.DEFAULT_GOAL := help
.PHONY: help demo demo-clean test check format lint types imports kernels unit e2e coverage crash soak perf lock install install-dev clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install ## install, start every role, ingest the example corpus, ask its questions, stop
	@$(BIN)/python examples/demo.py

test: install-dev ## everything a maintainer needs to believe a change
	@$(MAKE) --no-print-directory --jobs 2 check kernels
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n $(AT_ONCE) --dist worksteal --cov --cov-report= $(PYTEST)
	@$(MAKE) --no-print-directory coverage

check: install-dev lint types imports ## format, lint, types, import direction

format: install-dev ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install-dev
	$(BIN)/mypy

imports: install-dev
	$(BIN)/lint-imports

kernels: install-dev # compiled once here, not by each process of the tests that comes to it first
	@$(BIN)/python -c "from penstock.storage.search.planner import prepare; prepare()"

unit: install-dev ## the quick tests only
	$(BIN)/python -m pytest -n auto --dist worksteal tests/unit tests/contract $(PYTEST)

coverage: ## print the coverage of the last test run; at least 85 %
	@$(BIN)/coverage report --fail-under=85 --skip-covered --skip-empty

crash: install-dev ## kill, lock, fill up and stop more: ROUNDS=200 random rounds, each with a seed that is printed
	PENSTOCK_TEST_ROUNDS=$(or $(ROUNDS),50) $(BIN)/python -m pytest -s --timeout 7200 -p no:cacheprovider \
	  tests/crash/test_kill_matrix.py tests/crash/test_outages.py tests/crash/test_bad_delivery.py \
	  tests/crash/test_real_outages.py $(PYTEST)

soak: install-dev ## random requests and kills for MINUTES=10, compared with a model all the time; SEED=… repeats one
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

perf: install-dev ## run every performance question at a reduced size
	@for question in perf/[a-z]*.py; do case $$question in */report.py|*/llamaindex.py|*/peers.py) ;; *) $(BIN)/python $$question --quick || exit 1;; esac; done

lock: ## resolve the dependencies again (needs uv)
	uv pip compile -q pyproject.toml --extra all --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --custom-compile-command "make lock" -o requirements/run.txt
	uv pip compile -q pyproject.toml --extra all --extra dev -c requirements/run.txt --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command "make lock" -o requirements/dev.txt

install: $(VENV)/.run ## the environment with every role

install-dev: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) requirements/check.py
	@$(PYTHON) -m venv $(VENV)

# --no-deps: the lists are complete, and pip resolves an extra (coverage[toml]) past what they pin.
$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python requirements/check.py
	@echo "Installing Penstock into $(VENV) (hnswlib is compiled: this takes a minute or two) ..."
	@$(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "Installing the tools for the tests ..."
	@$(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

demo-clean: ## forget the demo's data
	rm -rf .penstock

clean: ## remove the environment and everything made by the tools
	rm -rf $(VENV) .penstock build *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
