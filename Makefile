# Everything a newcomer types. `make demo` shows a paid training order, `make test` runs every check; both
# install what is missing into .venv, node_modules and build/, nothing elsewhere, and a second run installs
# nothing. Needs Python 3.11 or newer, Node.js 20 or newer, and make.

PYTHON ?= python3
SOLC := build/solc/solc-v0.8.30
VENV := .venv/.installed
NODE := node_modules/.installed
SOURCES := $(shell find contracts -name '*.sol')
DEMO_ARGS ?=
ifdef KEEP
DEMO_ARGS += --keep
endif

# What ape, forge and py-solc-x look for; see docs/toolchain.md.
export APE_DATA_FOLDER := $(CURDIR)/build/ape
export SOLCX_BINARY_PATH := $(CURDIR)/build/solc
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test lint types test-contracts test-python test-ipfs compile bench soak docs clean
.PHONY: .venv node_modules build/solc

help:
	@echo "make demo    a paid training order from start to end (KEEP=1 leaves the network up)"
	@echo "make test    every check: lint, types, contract tests, Python tests"
	@echo "also: install, compile, lint, types, test-contracts, test-python, test-ipfs, bench, soak, docs, clean"

install: $(VENV) $(NODE) $(SOLC)

demo: install compile
	dtn demo $(DEMO_ARGS)

# Python's tests come last, so that the output ends with their summary.
test: lint types test-contracts test-python

lint: install
	ruff check .
	ruff format --check .
	forge fmt --check

types: install
	mypy

# Ape compiles again what changed, but not what imports it: hence --force.
test-contracts: install
	forge test
	ape compile --force
	CONTRACT_COVERAGE=1 ape test tests/contracts

# Three workers on two cores: the tests that drive real processes wait a good deal (tests/conftest.py). Where
# nothing may write bytecode, each of their hundreds of processes would compile all of our modules.
test-python: export PYTHONDONTWRITEBYTECODE :=
test-python: install
	pytest -n 3 --dist loadgroup --no-loadscope-reorder

# 90 MB more: a real IPFS node, which pins and fetches our files.
test-ipfs: install
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[ipfs]'
	pytest tests/storage/test_real_kubo.py

compile: build/.compiled

bench: install
	@for file in benchmarks/[a-z]*.py; do \
		python -m benchmarks.$$(basename $$file .py) --json || exit 1; \
	done

soak: install
	FOUNDRY_PROFILE=soak forge test
	pytest -n 3 -m hypothesis --hypothesis-profile other
	python -m tests.simulation --seeds 1000
	python -m tests.simulation.mutants

# In an environment of its own: it needs nothing of ours, and its packages would bind our versions.
docs: build/site-env/.installed
	NO_MKDOCS_2_WARNING=1 build/site-env/bin/mkdocs build

build/site-env/.installed:
	$(PYTHON) -m venv build/site-env
	build/site-env/bin/pip install --quiet mkdocs==1.6.1 mkdocs-material==9.8.1
	touch $@

clean:
	rm -rf build .build .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv: $(VENV)
node_modules: $(NODE)
build/solc: $(SOLC)

$(VENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: install it, or name it with make PYTHON=..." >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[train,data,ape,trace,dev]'
	@touch $@

$(NODE): package.json
	@command -v node >/dev/null && command -v npm >/dev/null && \
		node -e 'process.exit(+process.versions.node.split(".")[0] < 20 ? 1 : 0)' || \
		{ echo "Node.js 20 or newer with npm is needed: install it, then run make again" >&2; exit 1; }
	npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

$(SOLC): scripts/bootstrap/solc_shim.py $(NODE) | $(VENV)
	.venv/bin/python scripts/bootstrap/solc_shim.py build/solc
	@touch $@

build/.compiled: $(SOURCES) scripts/compile.py $(SOLC)
	python scripts/compile.py
	@mkdir -p build && touch $@
