# make book        environment, every chapter executed, HTML in _build/html; a warning is an error
# make test        environment, ruff, mypy, doctests, unit and property tests, every chapter under nbval
# make notebook    JupyterLab on the chapters
# make bench       how fast the package is
# make check-html  the built book in a headless Chromium: offline, error-free, photographed
# make address     carry the repository's address from pyproject.toml to every copy of it
# make clean       remove what these commands made
#
# PYTHON=python3.12 chooses the interpreter, VENV=dir the place of the environment, JOBS=4 the test workers.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
BIN    := $(abspath $(VENV))/bin
# What installs; continuous integration puts a faster one here.
INSTALL ?= $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

export PATH := $(BIN):$(PATH)
export PYTHONHASHSEED := 0
export PYTHONNOUSERSITE := 1
# One thread to each process: chapters run side by side, and so do the runs of a study.
export OMP_NUM_THREADS ?= 1
# Colours and progress bars are for people, not for compared outputs.
export NO_COLOR := 1
unexport PYTHONPATH VIRTUAL_ENV

.PHONY: help book test bench notebook check-html address clean
.DELETE_ON_ERROR:
.SILENT:

help:
	sed -n 's/^# make/make/p' Makefile

# ---- the environment: made once, again only when pyproject.toml changes

define NO_PYTHON
dirlearn needs Python 3.11 or newer, and "$(PYTHON)" is not one: install it, or name it with `make PYTHON=...`
endef
python-ok = $(shell $(PYTHON) -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)

# $(call install,extras): pip's own words go to a file, shown when it fails.
define install
	echo "==> Installing dirlearn[$(1)] into $(VENV) (a minute or two)"
	$(INSTALL) -e '.[$(1)]' >$(VENV)/install.log 2>&1 || { \
	  tail -n 25 $(VENV)/install.log; \
	  echo "The installation of dirlearn[$(1)] failed: its last words stand above, all of them in $(VENV)/install.log" >&2; exit 1; }
endef

$(VENV)/.made:
	$(if $(filter True,$(python-ok)),,$(error $(NO_PYTHON)))
	$(PYTHON) -m venv $(VENV) >/dev/null || { rm -rf $(VENV); \
	  echo "$(PYTHON) could not make the environment $(VENV): on Debian and Ubuntu, install python3-venv" >&2; exit 1; }
	touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	$(call install,lab$(comma)book$(comma)test)
	touch $@

$(VENV)/.notebook: $(VENV)/.installed
	$(call install,notebook)
	touch $@

comma := ,

# ---- what was executed: forgotten when the package or its data is newer, for chapters compute with both

files = $(shell find $(1) -type f -not -name '*.pyc' 2>/dev/null)

_build/.executed: $(call files,dirlearn data) pyproject.toml
	mkdir -p _build
	rm -rf _build/.jupyter_cache _build/.doctrees
	touch $@

# What was rendered is forgotten when its looks change: Sphinx does not see that by itself.
_build/.rendered: $(call files,book/_static book/_ext) _config.yml _toc.yml
	mkdir -p _build
	rm -rf _build/.doctrees
	touch $@

# ---- the commands

book: $(VENV)/.installed _build/.executed _build/.rendered
	echo "==> Building the book (chapters that nothing has executed yet are executed now)"
	# What a failed build has read must be read again, or its warnings would be forgotten.
	$(BIN)/jupyter-book build . --warningiserror --keep-going || { rm -rf _build/.doctrees; exit 1; }
	touch _build/.built
	echo "==> The book lies in _build/html: open _build/html/index.html"

test: $(VENV)/.installed _build/.executed
	echo "==> ruff: style"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	echo "==> mypy: types"
	$(BIN)/mypy
	echo "==> pytest: doctests, tests, every chapter ($(JOBS) at a time)"
	$(BIN)/python -m pytest book dirlearn tests --nbval-lax -n $(JOBS) --dist loadfile --no-loadscope-reorder
	echo "==> All passed; the executed chapters wait in _build/.jupyter_cache for 'make book'"

bench: $(VENV)/.installed
	$(BIN)/python -m pytest tests/benchmarks -o addopts= --benchmark-only

notebook: $(VENV)/.notebook
	$(BIN)/jupyter lab --notebook-dir=book

check-html: $(VENV)/.installed
	test -f _build/html/index.html || { echo "There is no built book yet: run 'make book' first" >&2; exit 1; }
	DIRLEARN_SCREENS=_build/screens $(BIN)/python -m pytest tests/test_offline.py
	echo "==> Screenshots (wide, phone, dark) lie in _build/screens"

address: $(VENV)/.installed
	$(BIN)/python .github/address.py

clean:
	rm -rf _build $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	echo "==> Clean"
