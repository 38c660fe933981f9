# Everything a developer does here; `make help` lists it. Nothing needs root or a network
# beyond the package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PROMPT ?= a red star on a blue background
N      ?= 8
# What a contract must stay compatible with, besides what is being changed: a branch or a commit.
BASE   ?= HEAD
# PyTorch's threads: those that spin while they wait take the cores from the other services of one
# machine, and those that sleep at once are woken for each operation, which makes a small model 2.5
# times as slow. These spin from one operation to the next, and then sleep.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 10000

# Neither the demo nor the tests may ask the hub for anything.
demo test test-parity test-slow test-gpu demo-models bench-core bench-generator bench-classifier bench-ranker bench-soak bench-gpu parity-table: export HF_HUB_OFFLINE = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-parity test-slow test-gpu check docs fix protos demo-models bench bench-core bench-generator bench-classifier bench-ranker bench-soak bench-gpu parity-table plots clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.dev $(VENV)/.tritonclient ## .venv with everything that the commands below need

$(VENV)/.all: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.all
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

# By itself, inside of the other: it needs a protobuf that is too old for everything else.
$(VENV)/.tritonclient: tests/tritonclient.txt | $(VENV)/.all
	$(PYTHON) -m venv $(VENV)/tritonclient
	$(VENV)/tritonclient/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Through the environment: a prompt may have quotes of its own.
demo: export PROMPT := $(PROMPT)
demo: export N := $(N)
demo: $(VENV)/.all ## the main job on the embedded models: PROMPT="a red star" N=8
	$(BIN)/easel demo --prompt "$$PROMPT" --n "$$N" --out out/demo

up: $(VENV)/.all ## all services on this machine, until Ctrl-C
	$(BIN)/easel up

# Side by side, a file at a time, in one process more than there are cores (tests/conftest.py).
test: $(VENV)/.dev $(VENV)/.tritonclient ## the default tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-parity: $(VENV)/.dev ## full-size models against transformers and diffusers (slow)
	$(BIN)/python -m pytest tests/parity -m 'slow or not slow'

test-slow: $(VENV)/.dev $(VENV)/.tritonclient ## what the default tests leave out, parity and all
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/.dev ## what needs a CUDA device, which is skipped where there is none
	$(BIN)/python -m pytest tests/gpu -m gpu -rs

check: $(VENV)/.dev ## format, lint, types, import contracts, contracts and stubs in step, manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against '.git#ref=$(BASE),subdir=protos'
	$(BIN)/python protos/generate.py --check
	$(BIN)/python docs/settings.py --check
	$(BIN)/python k8s/check.py

docs: $(VENV)/.dev ## write docs/settings.md from the code
	$(BIN)/python docs/settings.py

fix: $(VENV)/.dev ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(VENV)/.dev ## regenerate the stubs under easel/ and services/inference/
	$(BIN)/python protos/generate.py

demo-models: $(VENV)/.dev ## train the embedded models by their recipe (hours; resumes)
	$(BIN)/python -m models.recipe

bench: bench-core bench-generator bench-classifier bench-ranker bench-soak ## every benchmark; QUICK=1 for short ones

bench-core: $(VENV)/.dev ## engine, service and gateway overheads, cancel to release
	$(BIN)/python -m benchmarks.core

bench-generator: $(VENV)/.dev ## mixed batches against diffusers, the demo pair's faithfulness
	$(BIN)/python -m benchmarks.generator

bench-classifier: $(VENV)/.dev ## ViT-L and the demo model served, against transformers' pipeline
	$(BIN)/python -m benchmarks.classifier

bench-ranker: $(VENV)/.dev ## match graph, leaderboard, image index, pruning: speed and truth
	$(BIN)/python -m benchmarks.ranker

bench-soak: $(VENV)/.dev ## 10 minutes of requests, cancels and disconnects (FULL=1: 30)
	$(BIN)/python -m benchmarks.soak

bench-gpu: $(VENV)/.dev ## SD 1.5 and ViT-L on a GPU: saturation, row-steps against the matrix rate
	$(BIN)/python -m benchmarks.gpu

parity-table: $(VENV)/.dev ## every backend of the classifier against PyTorch, into docs/classifier.md
	$(BIN)/python -m benchmarks.parity

plots: $(VENV)/.dev ## the kept benchmark records as pictures and tables of the docs
	$(BIN)/python -m benchmarks.plots

clean: ## what the commands above made, except .venv
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
