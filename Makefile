# Every target does all the set-up that it needs; with everything in place that takes under a second.

PYTHON ?= python3
ARGS ?=

VENV := .venv
python := $(VENV)/bin/python

# The environment is made anew when one of these changes: Python, this folder's place, what is pinned, what is asked for.
inputs := $(shell { $(PYTHON) --version; pwd; cat requirements.lock pyproject.toml; } 2>/dev/null | sha256sum | cut -c 1-16)
installed := $(VENV)/.installed-$(inputs)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test check setup clean

help:
	@echo 'make run [ARGS="…"]   run the experiment that conf/ describes; ARGS are overrides: ARGS="machines.count=2"'
	@echo 'make test [ARGS="…"]  everything that must hold: format, lint, types, and all tests with real guests'
	@echo 'make check            format, lint and types only'
	@echo 'make setup            only what the others do first: Python environment, packages, guest image'
	@echo 'make clean            remove what was set up here; results and the cache of images stay'
	@echo 'make help             this'

run: $(installed)
	@$(python) -m host_setup
	@$(python) -m runner $(ARGS)

test: check
	@$(python) -m host_setup packages --arch all --bridge --tests
	@$(python) -m host_setup --arch all
	$(python) -m pytest --numprocesses auto --dist loadfile $(ARGS)

check: $(installed)
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy

setup: $(installed)
	@$(python) -m host_setup

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(installed):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'Python 3.11 or newer is needed, and $(PYTHON) is not; name one: make PYTHON=python3.11 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    as_root='sudo -n'; [ "$$(id -u)" -ne 0 ] || as_root=''; \
	    echo 'installing python3-venv'; \
	    { $$as_root apt-get update --quiet=2 && $$as_root apt-get install --quiet=2 --yes python3-venv; } || { \
	        echo 'Python cannot make virtual environments; as root: apt-get install python3-venv' >&2; exit 1; }; }
	@echo 'making the Python environment'
	@$(PYTHON) -m venv $(VENV)
	@$(python) -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.lock
	@$(python) -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-*
	@touch $@
