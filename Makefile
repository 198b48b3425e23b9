# Everything that is done with this checkout. Each target can be run again; `make` lists them.

PYTHON ?=
# How many tests run at a time. They wait for processes and disks more than they compute.
WORKERS ?= 4
VENV := .venv
KETCH := $(VENV)/bin/ketch
SETUP := PYTHON='$(PYTHON)' sh scripts/setup.sh
.DEFAULT_GOAL := help
.PHONY: help run test test-user venv lint peers bench test-vm clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

run: ## set up what ketch needs and run a first container (root)
	@$(SETUP) run
	@sh scripts/first_run.sh $(KETCH)

test: ## set up what the tests need and run every test (root)
	@$(SETUP) test
	$(VENV)/bin/pytest -n $(WORKERS)

test-user: ## run the end-to-end tests on the engine of an ordinary user, then of one without subordinate ids (root)
	@$(SETUP) test
	$(VENV)/bin/pytest -n $(WORKERS) --engine user tests/e2e
	$(VENV)/bin/pytest -n $(WORKERS) --engine lone tests/e2e -m user
	$(VENV)/bin/python -m tests.support.inside tests/e2e -m in_process

venv: ## make .venv with ketch in it
	@$(SETUP) venv

lint: ## check form, types and import contracts
	@$(SETUP) dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

peers: ## get docker, podman, runc and crun to compare with, without starting them (root)
	@$(SETUP) peers

bench: ## time starts, images, builds, networks, names, the API, sandboxes and an ordinary user against docker, podman and runc, where installed (root)
	@$(SETUP) bench
	@failed=; for each in "bench $(BENCH)" $(addprefix bench.,oci containers images build network names watching egress api sandbox rootless endurance); do \
		echo "== python -m $$each"; \
		$(VENV)/bin/python -m $$each || failed="$$failed $${each%% *}"; \
	done; test -z "$$failed" || { echo "these failed:$$failed" >&2; exit 1; }

test-vm: ## run the tests in virtual machines with cgroup v2: Debian 12's kernel and Python, then 13's (root)
	@$(SETUP) test
	$(VENV)/bin/python tests/vm/boot.py --suite bookworm
	$(VENV)/bin/python tests/vm/boot.py --suite trixie

clean: ## remove the virtual environment, caches and cached images
	rm -rf $(VENV) .cache dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
