# PUD on Kubeflow. `make help` lists the targets; everything runs in .venv, made on first use.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA := data/train/dataset.json
PORT ?= 5000
.DEFAULT_GOAL := help
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(DATA): | $(READY)
	$(BIN)/pud fetch fashion-mnist

setup: $(READY) ## make .venv with everything pinned in constraints.txt

demo: $(READY) $(DATA) ## the whole pipeline on this machine: BadNets on Fashion-MNIST, purified round by round
	$(BIN)/pud run --trigger badnets --seed 0

test: $(READY) ## lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest

figures: $(READY) $(DATA) ## the figures table of the README, BadNets and Blend
	$(BIN)/pud run --trigger badnets --seed 0 --name figures-badnets
	$(BIN)/pud run --trigger blend --seed 0 --name figures-blend
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.task_overhead
	$(BIN)/python -m benchmarks.figures runs/figures-badnets runs/figures-blend

bench: $(READY) $(DATA) ## the grid of attacks, defences and rivals into docs/results.md; hours, stops and resumes (MINUTES=60)
	$(BIN)/python -m benchmarks.grid $(if $(MINUTES),--minutes $(MINUTES))
	$(BIN)/python -m benchmarks.results

mlflow: $(READY) ## open the MLflow UI on the runs of this folder
	$(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(PORT)

compile: $(READY) ## write pipelines/pud.yaml; ROUNDS=5 for another number of rounds
	$(if $(ROUNDS),ROUNDS=$(ROUNDS)) $(BIN)/python -m pipelines.pud

.PHONY: help setup demo test figures bench mlflow compile
