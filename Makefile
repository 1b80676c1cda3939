# Everything a newcomer needs: `make up` and `make test`. Each sets up what is missing.
#
#   make up             install what is missing, start everything     EMPTY=1 SIMULATOR=1 DETACH=1
#   make down, status   stop it; show the parts, their health and memory
#   make demo           two fresh organizations through the REST API, three different answers
#   make test           format, lint, types, import contracts, tests
#   make bench          every figure beside nginx and LiteLLM, one table             SHORT=1
#   make bench-gateway  CPU per request and per chunk, beside nginx in the same run     SHORT=1
#   make lint, engine   the checks without the tests; the engine's own environment

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tessera
# uv from the path, else one of our own through pip, where no system package is touched.
UV := $(or $(shell command -v uv 2>/dev/null),$(CACHE)/uv/bin/uv)
export UV
PYTHON := .venv/bin/python
SYNCED := .venv/.synced-with-lock
flag = $(if $(filter-out 0,$($(1))),$(2))

.DEFAULT_GOAL := help
.PHONY: help up down status demo test lint engine bench bench-gateway

help:
	@sed -n 's/^#   //p' Makefile

up: $(SYNCED)
	@exec $(PYTHON) manage.py up $(call flag,EMPTY,--empty) $(call flag,SIMULATOR,--simulator) $(call flag,DETACH,--detach)

down status: $(SYNCED)
	@$(PYTHON) manage.py $@

demo: $(SYNCED)
	@$(PYTHON) manage.py demo

test: lint engine
	.venv/bin/pytest

lint: $(SYNCED)
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy .
	.venv/bin/lint-imports

# Tests that need the engine are skipped, with the reason, where it cannot be installed.
engine: $(SYNCED)
	-DJANGO_SETTINGS_MODULE=controlplane.settings.dev $(PYTHON) manage.py engine_install

bench: $(SYNCED)
	$(PYTHON) -m bench $(call flag,SHORT,--short)

bench-gateway: $(SYNCED)
	$(PYTHON) -m bench.gateway $(call flag,SHORT,--short)

$(SYNCED): pyproject.toml uv.lock | $(UV)
	@echo "Installing the platform's packages (about 300 MB) into .venv"
	$(UV) sync --frozen
	@touch $@

# --target leaves the system's own packages alone, so that Debian's pip (PEP 668) agrees too.
$(CACHE)/uv/bin/uv:
	@echo "Installing uv (20 MB) into $(CACHE)/uv"
	@python3 -m pip install --quiet --disable-pip-version-check --target $(CACHE)/uv 'uv>=0.8' \
	  || { python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet 'uv>=0.8'; } \
	  || { echo "Neither pip nor venv works here: install uv (https://docs.astral.sh/uv), or" \
	       "python3-pip, and try again." >&2; exit 1; }
