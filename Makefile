# Thin names for saf-env's commands. `make` alone lists them. ARGS goes to the command:
#     make check ARGS="--json"
# The first target makes what saf-env needs in .saf (saf_env/bootstrap.sh); nothing else is touched.

SAF_ENV = @sh saf_env/bootstrap.sh tool saf-env
DEV = @sh saf_env/bootstrap.sh dev

.DEFAULT_GOAL := help
.PHONY: help lock check up status plan logs test-cluster down test bench lint format pins engine base-image machine sshd clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' Makefile
	@echo '  ARGS="..." is handed to the command: make check ARGS="--json"'

lock: ## resolve the cluster file once, write lockfiles/<cluster>/
	$(SAF_ENV) lock $(ARGS)

check: ## is this machine what the lock says, and may it join
	$(SAF_ENV) check $(ARGS)

up: ## lock if nothing is locked, provision, check, start, attest
	$(SAF_ENV) up $(ARGS)

status: ## nodes, planned against actual
	$(SAF_ENV) status $(ARGS)

plan: ## what up would do, without doing it
	$(SAF_ENV) plan $(ARGS)

logs: ## logs of all nodes
	$(SAF_ENV) logs $(ARGS)

test-cluster: ## the workload suite on the running cluster, with a report
	$(SAF_ENV) test $(ARGS)

down: ## stop this cluster, and nothing else
	$(SAF_ENV) down $(ARGS)

test: ## the project's own tests
	$(DEV) pytest -n 2 --no-loadscope-reorder $(ARGS)

engine: ## install and start a Docker engine with Compose and Buildx (Debian, as root)
	@sh images/engine.sh $(ARGS)

base-image: ## make a base image from Debian packages, for machines that cannot pull
	@sh images/base.sh saf-env-base:local $(ARGS)

machine: ## make the file system of the tests' other machines from Debian packages (as root)
	@sh images/machine.sh $(ARGS)

sshd: ## install what the tests of hosts over SSH need, without starting it (Debian, as root)
	@sh tests/sshd.sh

bench: ## the project's own speed, beside the plain tools
	$(DEV) python -m benchmarks $(ARGS)

lint: ## ruff and mypy over the project
	$(DEV) ruff check .
	$(DEV) ruff format --check .
	$(DEV) mypy

format: ## format the project's Python files
	$(DEV) ruff check --fix .
	$(DEV) ruff format .

pins: ## resolve saf-env's own packages and uv anew, show the difference first
	$(DEV) python .ci/pins.py $(ARGS)

clean: ## stop the clusters and remove all that can be made again (reports are kept)
	@if [ -d .saf/clusters ]; then sh saf_env/bootstrap.sh tool saf-env down --all; fi
	@cd .saf 2>/dev/null && rm -rf bench bootstrap.lock cache clusters dev envs images locks new-* proven python tmp tool uv; true
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . \( -name .saf -o -name .git \) -prune -o -name __pycache__ -prune -exec rm -rf {} +
