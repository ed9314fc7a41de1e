# `make` alone lists the targets. A first `make demo` or `make test` sets up .venv by itself.

PYTHON ?= python3
PYTEST := .venv/bin/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder
DEMO := PYTHON="$(PYTHON)" .ci/venv worker/embedded/requirements.txt
DEV := PYTHON="$(PYTHON)" .ci/venv tests/requirements.txt
COMPILE = .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" pyproject.toml --group build

.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-audit bench-migrations bench-erasure test-storm coverage lint format lock env clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## show the product on servers and data of its own (ARGS="--keep" leaves it running)
	@$(DEMO)
	@.venv/bin/compliance demo $(ARGS)

test: ## run the tests (ARGS="tests/unit -k name" for some)
	@$(DEV)
	@$(PYTEST) -m "not storm" $(ARGS)

bench: ## measure what jobs cost, by ratios (ARGS="--help" lists sizes); wants a quiet machine
	@$(DEV)
	@.venv/bin/python -m bench.jobs $(ARGS)

bench-audit: ## measure how fast the audit log is verified (ARGS="files", "mongo", "sealing"; "--help" lists sizes); wants a quiet machine
	@$(DEV)
	@.venv/bin/python -m bench.audit $(or $(ARGS),files)

bench-migrations: ## measure what migrations cost (ARGS="backfill", "foreground", "peers"; "--help" lists all); wants a quiet machine
	@$(DEV)
	@.venv/bin/python -m bench.migrations $(or $(ARGS),all)

bench-erasure: ## measure what erasures cost (ARGS="subject", "sweep", "foreground", "memory"; "--help" lists sizes); wants a quiet machine
	@$(DEV)
	@.venv/bin/python -m bench.erasure $(or $(ARGS),all)

test-storm: ## run the slow randomised fault injection
	@$(DEV)
	@$(PYTEST) -n 0 -m storm $(ARGS)

coverage: ## run the tests and print what they do not reach
	@$(DEV)
	@$(PYTEST) -m "not storm" --cov --cov-report=term-missing $(ARGS)

lint: ## ruff, mypy and the import contracts
	@$(DEV)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: ## format the code and apply safe fixes
	@$(DEV)
	@.venv/bin/ruff check --fix-only .
	@.venv/bin/ruff format .

lock: ## write the three lock files anew from pyproject.toml (needs a package index)
	@$(DEV)
	@$(COMPILE) --extra embedded --group dev -o tests/requirements.txt
	@$(COMPILE) --extra embedded -c tests/requirements.txt -o worker/embedded/requirements.txt
	@$(COMPILE) -c tests/requirements.txt -o worker/requirements.txt

env: ## write .env for docker compose with new random passwords, unless it is there
	@.ci/env

clean: ## remove .venv, caches and build output; the data in .compliance stays
	@rm -rf .venv build dist *.egg-info .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
