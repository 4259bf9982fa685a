# pointsman: the tasks of this project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOC := .tools/protoc/bin
PIP_INSTALL := pip install --quiet --disable-pip-version-check
PROTOS := $(sort $(wildcard protos/pointsman/v1/*.proto))
SOURCES := server client tests protos tools
PYTEST_WORKERS ?= 2

.PHONY: help
help: ## Lists the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=/path/to/it") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# The stamps make setting up idempotent: nothing is installed twice for the same requirements.
$(VENV)/.runtime: requirements/runtime.txt protos/pyproject.toml client/pyproject.toml server/pyproject.toml | $(BIN)/python
	$(BIN)/$(PIP_INSTALL) --require-hashes --requirement requirements/runtime.txt
	$(BIN)/$(PIP_INSTALL) --require-hashes --requirement requirements/build.txt
	$(BIN)/$(PIP_INSTALL) --no-deps --no-build-isolation --editable protos --editable client --editable server
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(BIN)/$(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt
	touch $@

.PHONY: setup
setup: $(VENV)/.dev ## Makes .venv with everything, `pointsman` in it

.PHONY: run
run: $(VENV)/.runtime ## Starts pointsman; without provider keys it answers from its simulator
	$(BIN)/pointsman serve

.PHONY: test
test: $(VENV)/.dev ## Runs all tests but the longest
	TEST_HISTORIES=1000 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m "not long"

.PHONY: test-all
test-all: $(VENV)/.dev ## Runs all tests and measures their coverage: 10,000 histories, replicas, wheels, benchmarks too
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --cov --cov-report=term:skip-covered

.PHONY: check
check: lint types imports protos-check audit ## Runs all static checks, and looks for known vulnerabilities

.PHONY: lint
lint: $(VENV)/.dev ## Checks style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(VENV)/.dev ## Puts the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cd protos && ../$(BIN)/buf format --write

.PHONY: types
types: $(VENV)/.dev ## Checks types
	$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## Checks that imports run one way
	$(BIN)/lint-imports --no-cache

.PHONY: audit
audit: $(VENV)/.dev ## Looks for known vulnerabilities in what we depend on (asks the package index, if it can be reached)
	$(BIN)/python tools/audit.py requirements/runtime.txt

.tools/protoc/.stamp: requirements/protos.txt
	$(PYTHON) -m venv .tools/protoc
	$(PROTOC)/$(PIP_INSTALL) --require-hashes --requirement requirements/protos.txt
	touch $@

.PHONY: protos
protos: .tools/protoc/.stamp ## Generates the stubs from the contract
	PATH="$(CURDIR)/$(PROTOC):$$PATH" $(PROTOC)/python -m grpc_tools.protoc -I protos \
	  --python_out=protos --grpc_python_out=protos --mypy_out=quiet:protos --mypy_grpc_out=quiet:protos $(PROTOS)

.PHONY: protos-check
protos-check: $(VENV)/.dev .tools/protoc/.stamp ## Checks the contract: style, breaks since the last release, drift of the stubs
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	cd protos && ../$(BIN)/buf breaking --against released.binpb
	tools/check_stubs.sh $(PROTOC)

.PHONY: protos-release
protos-release: $(VENV)/.dev ## Records the contract as released; later breaks are measured against it
	cd protos && ../$(BIN)/buf build -o released.binpb

.PHONY: wheels
wheels: $(VENV)/.dev ## Builds the three distributions into dist/
	for part in protos client server; do $(BIN)/python -m build --quiet --no-isolation --wheel --outdir dist $$part || exit 1; done

.PHONY: bench
bench: $(VENV)/.dev ## Measures speed and memory against floors in the same run
	$(BIN)/python -m bench
	$(BIN)/python -m bench.governance

.PHONY: wall
wall: $(VENV)/.dev ## Runs the fault wall against a server of its own (ten minutes); `python -m wall --help` for other gateways
	$(BIN)/python -m wall --start

.PHONY: dashboards
dashboards: $(VENV)/.dev ## Writes Grafana's dashboards anew from their short form
	$(BIN)/python tools/dashboards.py deploy/grafana/panels.yml deploy/grafana/dashboards

.PHONY: observers
observers: $(VENV)/.dev ## Builds Prometheus and an OpenTelemetry collector for the tests (five minutes, needs go)
	$(BIN)/python tools/observers.py

.PHONY: evaluate
evaluate: $(VENV)/.dev ## Measures the routing on recorded outcomes; writes docs/routing-evaluation.md and its plot
	$(BIN)/pointsman evaluate routing ../shared/data/routing --report docs

.PHONY: decisions
decisions: $(VENV)/.dev ## Writes docs/decisions.md anew: requests, what is decided about them, and why
	$(BIN)/python tools/worked_decisions.py docs/decisions.md

.PHONY: evaluate-held-out
evaluate-held-out: $(VENV)/.dev ## The same with forests that have not seen the prompts they judge (five minutes)
	$(BIN)/$(PIP_INSTALL) --require-hashes --requirement requirements/train.txt
	mkdir -p var
	$(BIN)/python -m training.held_out ../shared/data/routing var/held-out.csv
	$(BIN)/pointsman evaluate routing ../shared/data/routing --scores var/held-out.csv --report docs

.PHONY: train
train: $(VENV)/.dev ## Trains the judge and the injection detector anew from recorded outcomes and labelled texts (ten minutes)
	$(BIN)/$(PIP_INSTALL) --require-hashes --requirement requirements/train.txt
	$(BIN)/python -m training.judge ../shared/data/routing server/pointsman_server/data/judge.json
	$(BIN)/python -m training.second_look server/pointsman_server/data/second_look.json
	$(BIN)/python -m training.injection ../shared/data/security/injection.jsonl ../shared/data/routing/items.parquet server/pointsman_server/data/injection.json

.PHONY: requirements
requirements: $(VENV)/.dev ## Resolves the pinned requirements anew
	for name in runtime build dev train protos; do \
	  $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	    --output-file requirements/$$name.txt requirements/$$name.in || exit 1; done

.PHONY: clean
clean: ## Removes what the tasks made
	rm -rf $(VENV) .tools dist build .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
