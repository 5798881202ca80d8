# Everything a developer runs. Each target makes what it needs, a virtual environment
# first; what is there already is marked by a stamp file and not made twice.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
BROWSER_TESTS := tests/browser
# The peers of the benchmarks, which no test needs, have an environment of their own.
BENCH_VENV := $(VENV)/bench
BENCH_NODE := benchmarks/node
# For instance: make test PYTEST_ARGS="-k replay -x", or "-n 2" for all of it in two
# processes; make bench BENCH_ARGS="--rounds 3"
PYTEST_ARGS ?=
BENCH_ARGS ?=

# The warning is about our folder being importable from itself, which is harmless.
PIP := PYTHONWARNINGS="ignore:Editable installation" \
	$(BIN)/python -m pip --disable-pip-version-check --quiet
BENCH_PIP := $(subst $(BIN),$(BENCH_VENV)/bin,$(PIP))
# The programs that tests start, as "program:package".
PROGRAMS := chromium:chromium firefox-esr:firefox-esr curl:curl node:nodejs npm:npm \
	redis-server:redis-server
BENCH_PROGRAMS := redis-server:redis-server node:nodejs npm:npm nginx:nginx \
	/usr/lib/nginx/modules/ngx_nchan_module.so:libnginx-mod-nchan

export PIP_REQUIRE_VIRTUALENV = 1
# The browsers come from the system.
export PUPPETEER_SKIP_DOWNLOAD = 1

.DEFAULT_GOAL := help
# One pip at a time in one environment.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint docs bench clean programs node peers

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: $(STAMPS)/demo ## Serve the demo; it prints its address
	$(BIN)/python -m aiohttp_sse_routes demo

test: $(STAMPS)/test programs node ## Run all tests
	$(BIN)/python -m pytest -p tests.no_skips $(PYTEST_ARGS)

lint: $(STAMPS)/lint ## Check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(STAMPS)/docs ## Build the documentation in docs/_build/html
	$(BIN)/python -m sphinx -E -W --keep-going --quiet -b html docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html"

bench: $(BENCH_VENV)/.stamp peers ## Run the benchmarks
	$(BENCH_VENV)/bin/python -m benchmarks.run --json build/bench.json $(BENCH_ARGS)

clean: ## Remove everything that make has made, the environment too
	rm -rf $(VENV) build dist *.egg-info docs/_build
	rm -rf $(BROWSER_TESTS)/node_modules $(BENCH_NODE)/node_modules
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis htmlcov .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the environment -------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv module is missing."; \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -qq -y python3-venv; } || { \
		echo "It is needed: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# 25.1 is the first pip that knows dependency groups.
$(STAMPS)/pip: | $(BIN)/python
	@mkdir -p $(STAMPS)
	$(PIP) install 'pip>=25.1'
	@touch $@

$(STAMPS)/demo: pyproject.toml $(STAMPS)/pip
	$(PIP) install --editable '.[demo]'
	@touch $@

$(STAMPS)/test: pyproject.toml $(STAMPS)/pip
	$(PIP) install --editable . --group test
	@touch $@

$(STAMPS)/lint: pyproject.toml $(STAMPS)/pip
	$(PIP) install --editable . --group lint
	@touch $@

$(STAMPS)/docs: pyproject.toml $(STAMPS)/pip
	$(PIP) install --editable . --group docs
	@touch $@

# -- what the tests in browsers need besides -------------------------------------------

# No stamp: it is quick, and says each time what will be left out.
programs:
	@for entry in $(PROGRAMS); do \
		program=$${entry%%:*} package=$${entry##*:}; \
		command -v "$$program" >/dev/null && continue; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing $$package for the tests."; \
			export DEBIAN_FRONTEND=noninteractive; \
			{ apt-get update -qq && \
			apt-get install -qq -y --no-install-recommends "$$package"; } >/dev/null; \
		fi; \
		command -v "$$program" >/dev/null || \
			echo "Tests that need $$program will be skipped: it is not installed" \
				"(as root: apt-get install $$package)."; \
	done

ifneq ($(wildcard $(BROWSER_TESTS)/package.json),)
ifneq ($(shell command -v npm),)
node: $(BROWSER_TESTS)/node_modules/.stamp
else
node:
	@echo "Tests that need Node will be skipped: npm is not installed."
endif
else
node:
endif

# Without a lock file npm takes the newest that package.json allows.
$(BROWSER_TESTS)/node_modules/.stamp: $(wildcard $(BROWSER_TESTS)/package*.json)
	cd $(BROWSER_TESTS) && npm $(if $(filter %package-lock.json,$^),ci,install) \
		--no-audit --no-fund --loglevel=error
	@touch $@

# -- what the benchmarks compare with --------------------------------------------------

$(BENCH_VENV)/.stamp: pyproject.toml $(STAMPS)/pip
	$(BIN)/python -m venv $(BENCH_VENV)
	$(BENCH_PIP) install 'pip>=25.1'
	$(BENCH_PIP) install --editable . --group bench
	@touch $@

# What cannot be had is left out by the benchmarks, with a word.
peers:
	@for entry in $(BENCH_PROGRAMS); do \
		program=$${entry%%:*} package=$${entry##*:}; \
		command -v "$$program" >/dev/null || test -e "$$program" && continue; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing $$package for the benchmarks."; \
			export DEBIAN_FRONTEND=noninteractive; \
			{ apt-get update -qq && \
			apt-get install -qq -y --no-install-recommends "$$package"; } >/dev/null; \
		fi; \
	done
	@if command -v npm >/dev/null && \
		! test $(BENCH_NODE)/node_modules -nt $(BENCH_NODE)/package-lock.json; then \
		cd $(BENCH_NODE) && npm ci --no-audit --no-fund --loglevel=error && \
		touch node_modules || echo "npm cannot install better-sse."; \
	fi
