# Needs Python 3.11 or newer and nothing else: no docker, no database server, no system packages.
# Paths are relative throughout, so the checkout may lie below a directory with spaces in its name.

PYTHON ?= python3
PYTEST_FLAGS ?=
RUN := .venv/bin/python
# Named after the lock file's content: another lock file is another stamp, a mere new date is not.
STAMP := .venv/.installed-$(shell cksum < requirements-dev.lock | tr ' ' '-')

.PHONY: demo test browser-test check bench faults screenshots up clean venv
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(RUN) manage.py demo $(if $(ONCE),--once)

up: $(STAMP)
	$(RUN) manage.py up

test: $(STAMP)
	$(RUN) -m pytest $(PYTEST_FLAGS)

# In one process: they share an installation.
browser-test: $(STAMP)
	$(RUN) -m pytest -n 0 tests/browser $(PYTEST_FLAGS)

bench: $(STAMP)
	$(RUN) -m tests.bench

faults: $(STAMP)
	$(RUN) -m tests.faults.campaign

screenshots: $(STAMP)
	$(RUN) -m tests.browser.screenshots

check: $(STAMP)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())'
	$(RUN) .ci/lockfile.py
	$(RUN) .ci/deploy_check.py

venv: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "debugflow needs Python 3.11 or newer, and '$(PYTHON)' is not:" \
	    "$$($(PYTHON) --version 2>&1 | head -n 1). Name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments." \
	    "On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@.venv/bin/python -c '' 2>/dev/null || { \
	  echo "Making .venv with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear .venv; }
	@.venv/bin/python -m uv --version >/dev/null 2>&1 \
	  || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv \
	  || echo "uv is not to be had; pip does the same, slower"
	@echo "Installing requirements-dev.lock"
	@if .venv/bin/python -m uv --version >/dev/null 2>&1; then \
	  .venv/bin/python -m uv pip install --quiet --python .venv/bin/python --compile-bytecode \
	    --require-hashes -r requirements-dev.lock; \
	else \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
	    --require-hashes -r requirements-dev.lock; \
	fi
	@rm -f .venv/.installed-*
	@touch $(STAMP)

# What the embedded servers keep is removed too, wherever they keep it; not while they run.
clean:
	@test ! -x $(RUN) || $(RUN) -c \
	  'from debugflow.embedded.state import remove_state; remove_state()'
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis \
	  staticfiles bench.json faults.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
