# Needs python3 (3.11 or newer, with venv), make and git. All else goes into .venv, once.
#
#   make install PYTHON=python3.12        another interpreter
#   make install TORCH_PIP_ARGS=...       where pip finds the CPU build of torch (CONTRIBUTING.md)
#   make test PYTEST_ARGS="-k ledger"     a part of the suite; WORKERS=4 on a larger machine
#   make fuzz SECONDS=60                  for another time than ten minutes
#   make chaos KILLS=50                   for another number than 300
#   make image TARGET=cpu                 the other image; scripts/image.sh has the rest

PYTHON ?= python3
TORCH_PIP_ARGS ?=
PYTEST_ARGS ?=
SECONDS ?= 600
KILLS ?= 300
BENCH ?=
TARGET ?= gpu
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
SHELL_SCRIPTS := .ci/run benchmarks/gpu/lease.sh $(wildcard scripts/*.sh)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test fuzz chaos bench check lint scan format manifests lock lock-upgrade image clean python

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## the project and its locked dependencies into .venv

demo: $(INSTALLED)  ## train a small real model against a local S3 server, with a preemption
	$(BIN)/python -m job demo

# One thread for each of the workers: two processes of torch that share two cores wait for each
# other, and take twelve times as long. A file's tests stay together, as they share what is dear; the
# slow folders happen to come first, which keeps both workers busy to the end.
test: $(INSTALLED)  ## the whole test suite, WORKERS=2 at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses $(WORKERS) --dist loadfile \
	  --no-loadscope-reorder $(PYTEST_ARGS)

fuzz: $(INSTALLED)  ## break the data stage with odd input, for SECONDS=600
	$(BIN)/python -m tests.fuzz.fuzz_dataset --seconds $(SECONDS)

chaos: $(INSTALLED)  ## kill attempts at random moments, KILLS=300 times, and compare the results
	$(BIN)/python -m tests.chaos --kills $(KILLS)

bench: $(INSTALLED)  ## measure everything again, BENCH="startup overhead" or all of it
	$(BIN)/python -m benchmarks $(BENCH)

check: lint test  ## what CI runs, but for `make scan`

lint: $(INSTALLED)  ## style, types, import layers, generated tables, shell scripts
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/settings_table.py --check
	$(BIN)/python scripts/chart.py --check
	$(BIN)/python scripts/manifests.py --check
	$(BIN)/helm lint --strict --quiet helm --values helm/examples/eks-spot-irsa.yaml
	PATH="$(BIN):$$PATH" shellcheck $(SHELL_SCRIPTS)
	$(BIN)/yamllint --strict .github k8s helm/*.yaml helm/examples .yamllint.yaml

scan: $(INSTALLED)  ## the manifests against checkov, in an environment of its own
	scripts/checkov.sh

format: $(INSTALLED)  ## mend style and generated tables
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
	$(BIN)/python scripts/settings_table.py
	$(BIN)/python scripts/chart.py
	$(BIN)/python scripts/manifests.py

manifests: $(INSTALLED)  ## render k8s/ from the chart
	$(BIN)/python scripts/chart.py
	$(BIN)/python scripts/manifests.py

lock: $(INSTALLED)  ## resolve requirements/*.txt again after a change of pyproject.toml or pins.txt
	$(BIN)/python scripts/lock.py

lock-upgrade: $(INSTALLED)  ## the same, with the newest versions that fit
	$(BIN)/python scripts/lock.py --upgrade

image:  ## the container image, with docker, podman or buildah; TARGET=gpu or cpu, IMAGE=name:tag
	TARGET=$(TARGET) IMAGE=$(IMAGE) PYTHON=$(PYTHON) scripts/image.sh

clean:  ## remove .venv, caches and the demo's output
	rm -rf $(VENV) build dist *.egg-info demo-output
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: an install that was interrupted starts again from an empty .venv.
# Hashes are checked for every file but torch, whose CPU build differs by platform and index.
$(LOCKED): requirements/cpu.txt requirements/dev.txt requirements/torch-cpu.txt | python
	@echo "Installing the locked set into $(VENV): a few minutes and 2 GB, once."
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install -qq --no-deps --require-hashes --only-binary :all: \
	  -r requirements/cpu.txt -r requirements/dev.txt
	$(PIP) install -qq $(TORCH_PIP_ARGS) -r requirements/torch-cpu.txt
	@touch $@

$(INSTALLED): pyproject.toml $(LOCKED)
	$(PIP) install -qq --no-deps --no-build-isolation --editable .
	$(BIN)/python scripts/cluster_tools.py
	$(PIP) check
	@touch $@

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than 3.11: make ... PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv: install it (on Debian: python3-venv)" >&2; exit 1; }
