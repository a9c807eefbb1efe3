# `make` or `make help` lists what can be done. Everything works from a fresh clone, without an activated environment.
#
#   make test PYTHON=python3.13        choose the interpreter (3.11 or newer)
#   make test TESTS=tests/wire         run a part of the tests
#   make demo FILE=some.txt            count the lines of another file

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first interpreter that is new enough; an explicit PYTHON is taken as it is, and checked below.
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for p in $(CANDIDATES); do if $$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then echo $$p; break; fi; done)
endif

VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= auto
TESTS ?= tests
PYTEST_ARGS ?=
FILE ?=
BENCH_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_NO_WARN_SCRIPT_LOCATION := 1
unexport PYTHONHOME PYTHONPATH

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

.PHONY: demo
demo: $(VENV)/.base ## Run the line counter over mutual TLS, and try to break it (FILE=path for another file)
	@$(BIN)/caprpc demo $(if $(FILE),"$(FILE)")

.PHONY: test
test: $(VENV)/.test ## Run the tests (TESTS=path, PYTEST_ARGS=…, JOBS=n)
	@$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS) $(TESTS)

.PHONY: check
check: $(VENV)/.check ## Lint, formatting, types, floors, known-dangerous constructs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml caprpc

.PHONY: format
format: $(VENV)/.check ## Format the code and fix what ruff can fix by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.bench ## Measure CapRPC beside other RPC systems (BENCH_ARGS=…)
	@$(BIN)/python tests/benchmarks/run.py $(BENCH_ARGS)

MUTATION_ARGS ?=

.PHONY: mutation
mutation: $(VENV)/.test ## Change the policy validator and guard in small ways; a test must notice each (MUTATION_ARGS=…; half an hour)
	@$(BIN)/python tests/mutation/run.py $(MUTATION_ARGS)

.PHONY: docs
docs: $(VENV)/.docs ## Build the documentation into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: clean
clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. `interpreter` changes only when another Python was asked for; then everything is made anew.
.PHONY: FORCE
FORCE:

$(VENV)/interpreter: FORCE
	@if [ -z "$(PYTHON)" ]; then \
	  echo "caprpc: needs Python 3.11 or newer, and none of '$(CANDIDATES)' is" >&2; \
	  echo "  hint: install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 78; fi
	@if ! "$(PYTHON)" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then \
	  found="$$("$(PYTHON)" --version 2>/dev/null || echo 'not a Python that runs')"; \
	  echo "caprpc: needs Python 3.11 or newer; '$(PYTHON)' is $$found" >&2; \
	  echo "  hint: name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 78; fi
	@wanted="$$("$(PYTHON)" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)')"; \
	if [ ! -x $(BIN)/python ] || [ "$$(cat $@ 2>/dev/null)" != "$$wanted" ]; then \
	  echo "caprpc: making $(VENV) with Python $${wanted%% *}"; \
	  rm -rf $(VENV); \
	  "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "caprpc: '$(PYTHON) -m venv' failed" >&2; \
	    echo "  hint: on Debian and Ubuntu, install the package python3-venv" >&2; exit 78; }; \
	  echo "$$wanted" > $@; \
	fi

# One stamp for each set of packages; pip runs again only when pyproject.toml changed.
define install
	@echo "caprpc: installing $(1) into $(VENV) (a minute at most; only once)"
	@$(BIN)/python -m pip install -qq --editable "$(1)" || { \
	  echo "caprpc: pip could not install $(1)" >&2; \
	  echo "  hint: see the message above; packages come from your pip index (PIP_INDEX_URL, pip.conf)" >&2; exit 69; }
	@touch $@ $(VENV)/.base
endef

$(VENV)/.base: $(VENV)/interpreter pyproject.toml
	$(call install,.)

$(VENV)/.test: $(VENV)/interpreter pyproject.toml
	$(call install,.[test])

$(VENV)/.check: $(VENV)/interpreter pyproject.toml
	$(call install,.[check])

$(VENV)/.docs: $(VENV)/interpreter pyproject.toml
	$(call install,.[docs])

# pycapnp needs a compiler where it has no wheel: measured if it installs, left out if not.
$(VENV)/.bench: $(VENV)/interpreter pyproject.toml
	$(call install,.[bench])
	@$(BIN)/python -m pip install -qq --only-binary :all: pycapnp 2>/dev/null || \
	  echo "caprpc: pycapnp has no wheel for this Python and is left out of the table"
