# Every target makes its own environment first: Python, pip and make are all that a machine needs.
#   make test ARGS="-k drain -x"     make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# flake8-async takes files, no folders. Not the tests: they cancel wrongly on purpose.
# 109: our timeouts bound how long we ask. 124: an interface says what is async, not a body.
# 9xx: optional, for who wants a checkpoint in each async call; ours may return at once.
UNASKED := ASYNC109,ASYNC124,ASYNC9
# The engines' environment has 2 GB and takes minutes to make, so that checkouts share it, one for
# each set of pins; streamkit itself is found by PYTHONPATH, not installed in it. It is compiled, for
# each of vLLM's processes imports 20,000 files.
ENGINES_PINS := constraints-engines.txt
ENGINES_VENV ?= $(HOME)/.cache/streamkit/engines-$(firstword $(shell cksum $(ENGINES_PINS)))
ENGINES_READY := $(ENGINES_VENV)/.ready
LINTED := find $(wildcard streamkit examples) -name '*.py'

NODE_TESTS := tests/openai_node
# The tests start a hundred servers, and pytest rewrites each test: compiled once, not in each process.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: bench matrix soak known-faults help demo test test-openai-node test-engines suite canary fast servers proxies proxies-page budgets instructions lint types coverage mutants lowest constraints format clean

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit("streamkit needs Python 3.11 or newer, this is %d.%d: set PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@

demo: $(READY) ## watch a client leave and the engine stop
	$(BIN)/streamkit demo

test: $(if $(ARGS),,canary) suite ## the trio canary and every test, or what ARGS says

suite: $(READY) ## every test; all of them by four workers, for many wait for servers
	$(BIN)/python -m pytest $(or $(ARGS),-n 4 --dist worksteal)

test-openai-node: $(READY) ## OpenAI's Node client leaves in each of its ways; needs node and npm
	@if ! { node --version && npm --version; } >/dev/null 2>&1; then echo "node or npm is not installed, left out"; \
	else (cd $(NODE_TESTS) && npm install --no-package-lock --no-audit --no-fund --silent) && \
	  $(BIN)/python -m pytest tests/server/test_openai_node.py $(ARGS); fi

canary: $(READY) ## the loop-neutral tests again, on trio
	$(BIN)/python -m pytest -c pytest-trio.toml $(ARGS)

fast: $(READY) ## every test on virtual time: no sockets, no real seconds
	$(BIN)/python -m pytest -m 'not realtime' $(ARGS)

servers: $(READY) ## every way to leave in every phase on every server; `make test` takes a third of it
	E2E=full $(BIN)/python -m pytest tests/e2e $(ARGS)

proxies: $(READY) ## streamkit doctor on nginx, haproxy and Caddy, those that are installed; four minutes
	PROXIES=full $(BIN)/python -m pytest tests/proxies $(ARGS)

proxies-page: $(READY) ## measure what those proxies do, and write it into docs/howto; half an hour
	$(BIN)/python -m tests.proxies

budgets: $(READY) ## write into tests/costs/budgets.toml what everything costs now, on this Python
	COSTS=write $(BIN)/python -m pytest tests/costs $(ARGS)

instructions: $(READY) ## what the processor does for a token, a request, a cancel; needs valgrind, takes a minute
	$(BIN)/python -m tests.costs.instructions

# The stamp is an order-only prerequisite: what it depends on is the pins' content, in its path.
$(ENGINES_READY):
	$(PYTHON) -m venv --clear $(ENGINES_VENV)
	$(ENGINES_VENV)/bin/python -m pip install --quiet --no-deps --disable-pip-version-check -r $(ENGINES_PINS)
	@touch $@

test-engines: | $(ENGINES_READY) ## the adapters on the real engines, on the CPU (Linux, x86-64)
	PYTHONPATH=$(CURDIR) $(ENGINES_VENV)/bin/python -m pytest -c pytest-engines.toml $(ARGS)

lint: $(READY) ## style, format, cancellation hygiene, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/flake8-async --anyio --asyncio --disable=$(UNASKED) $$($(LINTED))
	$(BIN)/lint-imports --no-logo

types: $(READY) ## pyright, strict, and complete for those who use us
	$(BIN)/pyright --pythonpath $(BIN)/python
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes streamkit --ignoreexternal  # knows no --pythonpath

coverage: $(READY) ## which lines and branches no test runs
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: $(READY) ## break the core in 60 places and see which test notices; ARGS="--count 20 --seed 1"
	$(BIN)/python -m tests.mutation $(ARGS)

lowest: .venv-lowest.txt ## every test with the oldest dependencies that pyproject.toml admits
	$(MAKE) suite VENV=.venv-lowest CONSTRAINTS=$<

.venv-lowest.txt: pyproject.toml
	sed -n 's/^ *"\([a-z0-9-]*\).*>=\([0-9.]*\)".*/\1==\2/p' $< > $@

bench: $(READY) ## side by side with peers, half an hour; ARGS=--short takes five minutes
	$(BIN)/python -m benchmarks --out docs/benchmarks $(ARGS)

matrix: $(READY) ## every fault in every phase on every server, measured into docs/reference; ten minutes
	$(BIN)/python -m benchmarks.matrix $(ARGS)

soak: $(READY) ## 10,000 clients, half with a fault, at one server; ten minutes
	$(BIN)/python -m benchmarks.soak $(ARGS)

known-faults: $(READY) ## whether `streamkit chaos` finds what LitServe does; makes its environment, 70 MB
	$(BIN)/python -m benchmarks.known_faults

format: $(READY) ## let ruff write what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: $(READY) ## move every dependency to its newest release
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	  --no-header --no-emit-index-url --no-annotate --quiet -o constraints.txt

clean: ## remove what these targets made
	rm -rf .venv .venv-* benchmarks/.envs build dist .coverage* .import_linter_cache .pytest_cache .ruff_cache
	find streamkit tests -name __pycache__ -type d -prune -exec rm -rf {} +
