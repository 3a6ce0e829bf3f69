# Everything a person or CI types. Needs Python 3.11 or newer, make and git; all else is set up on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .tools/uv/bin/uv
READY := $(VENV)/.ready
PROTO_BASELINE := protos/baseline.binpb

# uv downloads no Python, trusts whom the system trusts, and asks the package index that pip is configured for.
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS := true
PIP_INDEX = $${PIP_INDEX_URL:-$$(.tools/uv/bin/pip config get global.index-url 2>/dev/null)}

.DEFAULT_GOAL := help
.PHONY: help up test lint format generate bench soak nemesis cluster tools lock baseline clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(READY) ## set up and serve the whole mesh on this machine (ARGS="--simulate")
	@exec $(BIN)/python -m services $(ARGS)

test: $(READY) tools ## set up and run all tests (ARGS="tests/unit -k settings")
	@$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## style, types, contracts, stubs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf format -d --exit-code --exclude-path protos/keda
	$(BIN)/buf breaking --against $(PROTO_BASELINE)
	$(BIN)/python clients/python/generate.py --check
	$(BIN)/python charts/values_table.py --check

format: $(READY) ## put code and contracts into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format -w --exclude-path protos/keda

generate: $(READY) ## rewrite the generated stubs and the chart's table of values
	$(BIN)/python clients/python/generate.py
	$(BIN)/python charts/values_table.py

bench: $(READY) ## measure, beside a bare floor in the same run (SUITE=name for one)
	@$(BIN)/python -m tests.performance $(SUITE) $(ARGS)

soak: $(READY) ## many requests, flat memory
	@$(BIN)/python -m tests.performance.soak $(ARGS)

nemesis: $(READY) ## kill, stop and cut everything under load; the ledger has to be the bill (ARGS="--seconds 600 --seed 7")
	@$(BIN)/python -m tests.faults.nemesis $(ARGS)

cluster: $(READY) ## the chart's life in a real Kubernetes that is made here: roll, kill, scale, roll back (root; ARGS="--json")
	@$(BIN)/python -m tests.tools kubernetes keda >&2
	@$(BIN)/python -m tests.cluster $(ARGS)

tools: $(READY) ## external programs that tests drive, pinned, into a cache folder (TOOL=promtool for one that takes long)
	@$(BIN)/python -m tests.tools $(TOOL)

lock: $(UV) ## renew requirements.lock from pyproject.toml
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --universal --generate-hashes --group dev \
		pyproject.toml --no-emit-package modelmuxer-client --output-file requirements.lock

baseline: $(READY) ## at a release: the contracts that later changes may not break
	$(BIN)/buf build --exclude-source-info --output $(PROTO_BASELINE)

clean: ## forget the environment (tools, state and keys stay)
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The environment, exactly as locked. The stamp makes every later run instant.
$(READY): $(UV) requirements.lock pyproject.toml clients/python/pyproject.toml
	@echo "Setting up $(VENV); this takes a minute, once"
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@index="$(PIP_INDEX)"; test -z "$$index" || export UV_DEFAULT_INDEX="$$index"; export VIRTUAL_ENV=$(VENV); \
		$(UV) pip sync --quiet --require-hashes requirements.lock && \
		$(UV) pip install --quiet --no-deps -e . -e clients/python
	@touch $@

# uv of the locked version, in an environment of its own.
$(UV): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "ModelMuxer needs Python 3.11 or newer, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) lacks the venv module: install it (Debian, Ubuntu: apt install python3-venv)."; exit 1; }
	@$(PYTHON) -m venv .tools/uv
	@.tools/uv/bin/pip --disable-pip-version-check install --quiet \
		"uv==$$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)"
	@touch $@
