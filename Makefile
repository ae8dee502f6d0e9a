# PUD on Kubeflow. `make help` lists the targets; everything runs in .venv, made on first use.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA := data/train/dataset.json
PORT ?= 5000
DOCKER ?= docker
# a docker client of 23 or newer cannot build without its buildx plugin; Debian's own (20.10) can
CLI = $$($(DOCKER) buildx version >/dev/null 2>&1 || [ ! -x /usr/bin/docker ] && echo $(DOCKER) || echo /usr/bin/docker)
VARIANT ?= cpu
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
IMAGE ?= pud:$(COMMIT)$(if $(filter cuda,$(VARIANT)),-cuda)
# where the cpu variant's torch is, unless pip is told of wheels nearby; PyPI's is the one with CUDA
WHEELS = $(or $(PIP_FIND_LINKS),$(shell $(BIN)/pip config get global.find-links 2>/dev/null))
TORCH_INDEX ?= $(if $(WHEELS),,https://download.pytorch.org/whl/cpu)
# and for the cuda variant PyPI's alone: no wheel of this machine
PIP_SOURCE = $(if $(filter cuda,$(VARIANT)),PIP_FIND_LINKS= PIP_CONFIG_FILE=/dev/null,$(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)))
.DEFAULT_GOAL := help
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# eight processes that nothing here uses
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false

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

# smaller than the default run (make figures), so that it takes minutes: fewer images, fewer of them attacked, and less
# of what a longer last round gains
demo: $(READY) $(DATA) ## the whole pipeline on this machine: BadNets on Fashion-MNIST, purified round by round
	$(BIN)/pud run --attack badnets --seed 0 -p train_size=12000 -p 'purify_settings={"doublings": [0, 1]}' \
	  -p 'evaluate_settings={"pgd_images": 500, "autoattack_images": 32, "masking_images": 100}'

# the protobufs of the oldest Kubeflow Pipelines that is supported, apart from everything else
build/kfp-2.15: | $(READY)
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt --target $@.partial \
	  protobuf googleapis-common-protos && $(BIN)/pip install --quiet --no-deps --target $@.partial \
	  kfp-kubernetes==2.15.0 kfp-pipeline-spec==2.15.0 && mv $@.partial $@

# two processes of one thread each, for most of the time goes into imports; a file's tests share its servers
test: $(READY) build/kfp-2.15 ## lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/pytest -m "not cluster and not containers" \
	  -n 2 --dist loadfile --no-loadscope-reorder

test-all: test cluster-test image-test zoo-test ## all four

# a torch and a torchvision that go together, and all that PUD needs, at the versions of constraints.txt
.venv-zoo/.ready: Makefile constraints.txt
	$(PYTHON) -m venv .venv-zoo
	mkdir -p build && sed '/^torch==/d' constraints.txt > build/zoo-constraints.txt
	$(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) .venv-zoo/bin/pip install --quiet \
	  --constraint build/zoo-constraints.txt torch==2.14.1 torchvision==0.29.1 timm==1.0.31 pytest --editable .
	touch $@

setup-zoo: .venv-zoo/.ready ## make .venv-zoo: PUD with the networks of torchvision and timm

zoo-test: .venv-zoo/.ready ## the contract of classifiers, on networks of torchvision and timm
	OMP_NUM_THREADS=1 .venv-zoo/bin/python -m pytest --confcutdir=tests/zoo -o pythonpath=". tests" tests/zoo

cluster-test: $(READY) postgresql ## the manifests, and the servers that they describe, started here
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -m cluster

postgresql: # for the tests of the servers; where there is none they say so
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; } || \
	  echo "SKIPPED: PostgreSQL is neither here nor can be installed, MLflow is tested on SQLite instead"

figures: $(READY) $(DATA) ## the figures table of the README, BadNets and Blend
	$(BIN)/pud run --attack badnets --seed 0 --name figures-badnets
	$(BIN)/pud run --attack blend --seed 0 --name figures-blend
	$(BIN)/python -m experiments.throughput
	$(BIN)/python -m experiments.task_overhead
	$(BIN)/python -m experiments.figures runs/figures-badnets runs/figures-blend

throughput: $(READY) ## images a second of purification and training, beside foolbox and, on a GPU, its limit (ARGS=...)
	$(BIN)/python -m experiments.throughput $(ARGS)

bench: $(READY) $(DATA) ## the grid of attacks, defences and rivals into docs/results.md; hours, stops and resumes (MINUTES=60)
	$(BIN)/python -m experiments.grid $(if $(MINUTES),--minutes $(MINUTES))
	$(BIN)/python -m experiments.results

mlflow: $(READY) ## open the MLflow UI on the runs of this folder
	$(BIN)/mlflow server --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(PORT)

compile: $(READY) ## write pipelines/*.yaml (ROUNDS=5 for other rounds, DATA_CACHE_PVC=NAME, DATA_GIB=20 for larger data)
	for name in pud scan defend; do \
	  $(foreach name,ROUNDS DATA_CACHE_PVC DATA_GIB,$(if $($(name)),$(name)=$($(name)))) $(BIN)/python -m pipelines.$$name || exit 1; done

wheel: $(READY) ## the Python package into build/dist
	rm -rf build/dist build/lib
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/dist .

lock: $(READY) ## write image/cpu.lock and image/cuda.lock from pyproject.toml and constraints.txt
	TORCH_INDEX="$(TORCH_INDEX)" TORCH_WHEELS="$(WHEELS)" $(BIN)/python image/lock.py

# what has only its source is built, by the locked setuptools; such a wheel is no file that the lock knows
build/wheels/$(VARIANT)/.ready: image/$(VARIANT).lock | $(READY)
	rm -rf $(@D) && mkdir -p $(@D)
	$(PIP_SOURCE) $(BIN)/pip wheel --quiet --no-deps --require-hashes --build-constraint $< --wheel-dir $(@D) --requirement $<
	touch $@

image: build/wheels/$(VARIANT)/.ready ## pud:COMMIT (VARIANT=cuda: pud:COMMIT-cuda; DOCKER=podman), its bill of materials, a scan
	DOCKER_BUILDKIT=1 $(CLI) build --network host --tag $(IMAGE) --build-arg VARIANT=$(VARIANT) \
	  --build-arg COMMIT=$(COMMIT) $(if $(BASE),--build-arg BASE=$(BASE)) .
	$(DOCKER) run --rm --interactive --network none $(IMAGE) python3 - < image/inventory.py > build/inventory.json
	$(BIN)/python image/sbom.py $(IMAGE) build/sbom.json < build/inventory.json
	container=$$($(DOCKER) create $(IMAGE)) && { $(DOCKER) export $$container | $(BIN)/python image/scan.py build/scan.json; \
	  code=$$?; $(DOCKER) rm $$container >/dev/null; exit $$code; }

image-test: $(READY) ## build the CPU image on this machine's own Docker daemon (started if need be) and test it
	base=$$(DOCKER="$(DOCKER)" bash image/daemon.sh) && $(MAKE) image VARIANT=cpu COMMIT=$(COMMIT) BASE=$$base
	IMAGE="$(IMAGE)" DOCKER="$(DOCKER)" $(BIN)/pytest -m containers tests/test_image.py

.PHONY: help setup setup-zoo zoo-test postgresql wheel lock image image-test cluster-test test-all demo test figures throughput bench mlflow compile
