# Needs Python 3.11 or newer, git and make; everything else goes into .venv, and for the benchmark into build/bench.
# `make` alone says what there is.

LISTEN ?= 127.0.0.1:8080
ARGS   ?=
# The first interpreter that runs and is new enough: a name on the path may be a shim for one that is not installed.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$python; break; }; done)

BIN    := .venv/bin
TREE   := __init__.py __main__.py py.typed gateway middlewares adapters
TYPES  := build/types/headgate
FORBIDDEN_LICENCES := GPL;GNU

.DEFAULT_GOAL := help
.PHONY: help run test check-format check-lint check-security check-types check-imports check-licences pytest docs \
	format types bench bench-plot bench-rules bench-pairs bench-middlewares soak fuzz build clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

run: .venv/.run ## serve routes.yaml on 127.0.0.1:8080 (LISTEN=host:port)
	@echo "Headgate answers at http://$(LISTEN), without any key. In another terminal:"
	@echo
	@echo "  curl http://$(LISTEN)/v1/chat/completions -H 'content-type: application/json' \\"
	@echo "    -d '{\"model\": \"demo\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'"
	@echo
	@exec $(BIN)/headgate serve routes.yaml --listen $(LISTEN)

test: check-format check-lint check-security check-types check-imports check-licences pytest ## all checks and tests, as CI runs them

check-format: .venv/.dev
	$(BIN)/ruff format --check .

check-lint: .venv/.dev
	$(BIN)/ruff check .

check-security: .venv/.dev
	$(BIN)/bandit -q -ll -c pyproject.toml -r gateway middlewares adapters

check-types: .venv/.dev $(TYPES)
	$(BIN)/mypy --explicit-package-bases
	$(BIN)/mypy --explicit-package-bases bench

check-imports: .venv/.dev $(TYPES)
	PYTHONPATH=build/types $(BIN)/lint-imports --no-logo --cache-dir build/import-linter

check-licences: .venv/.dev
	$(BIN)/pip-licenses --from=mixed --partial-match --fail-on "$(FORBIDDEN_LICENCES)" \
		--packages $$($(BIN)/python .ci/runtime_packages.py)

pytest: .venv/.dev
	$(BIN)/python -m pytest -q -n 2 -m "not slow" $(ARGS)

docs: .venv/.dev ## check that the pages are true: links, module names, error kinds, rule codes
	$(BIN)/python -m pytest -q tests/test_repository.py tests/test_pages.py tests/rules/test_mistakes.py $(ARGS)

format: .venv/.dev ## format the code and mend what lint can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: .venv/.dev $(TYPES) ## pyright besides mypy (needs Node)
	@command -v npx >/dev/null || { echo "make types needs Node: npx was not found" >&2; exit 1; }
	npx --yes pyright@1.1.414

bench: ## cost per request and chunk as ratios to a bare aiohttp proxy (ARGS=--quick, PYTHON=python3.13)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || \
		{ echo "SKIPPED: nothing was measured, $(or $(PYTHON),python) is no Python 3.11 or newer here" >&2; exit 0; }; \
	home=build/bench/$$($(PYTHON) -c 'import platform; print(platform.python_version())') && \
	{ [ $$home/.made -nt pyproject.toml ] || { $(PYTHON) -m venv --clear $$home && \
		PYTHONWARNINGS=ignore $$home/bin/python -m pip install -q -e '.[lean]' && touch $$home/.made; }; } && \
	$$home/bin/python -m bench.run $(ARGS)

bench-plot: .venv/.run ## draw docs/performance.svg from the newest of bench/results (ARGS=FILE: from that one)
	$(BIN)/python -m bench.plot $(ARGS)

bench-rules: .venv/.run ## what matching and loading rules cost
	$(BIN)/python bench/rules.py $(ARGS)

bench-pairs: .venv/.run ## what translating a chunk costs, for every pair of formats
	$(BIN)/python bench/pairs.py $(ARGS)

bench-middlewares: .venv/.run ## what each middleware costs, per call and per chunk
	$(BIN)/python bench/middlewares.py $(ARGS)

soak: .venv/.dev ## the slow tests
	$(BIN)/python -m pytest -q -m slow $(ARGS) || [ $$? -eq 5 ]  # 5: there are none

fuzz: .venv/.dev ## the law tests with many more examples, others at each run (HEADGATE_EXAMPLES=1000)
	HEADGATE_EXAMPLES=$${HEADGATE_EXAMPLES:-1000} $(BIN)/python -m pytest -q -n 2 --timeout 1800 tests/laws $(ARGS)

fuzz-secrets: .venv/.dev ## plant 10,000 secrets in requests and look for them wherever anything comes out
	HEADGATE_EXAMPLES=$${HEADGATE_EXAMPLES:-10000} $(BIN)/python -m pytest -q --timeout 3600 \
		tests/middlewares/test_planted_secret.py tests/middlewares/test_redact.py $(ARGS)

build: .venv/.dev ## wheel and sdist in dist/, tried in an empty environment
	rm -rf dist build/try
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m venv build/try/venv
	build/try/venv/bin/python -m pip install -q dist/*.whl
	cp routes.yaml build/try/
	cd build/try && venv/bin/python -m headgate check routes.yaml
	cd build/try && venv/bin/headgate init started.yaml && venv/bin/headgate check started.yaml

clean: ## remove what the other commands made, .venv too
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a second run installs only when pyproject.toml changed.

.venv/.run: pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "no Python 3.11 or newer was found: install one, or say make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e .
	@touch $@

.venv/.dev: .venv/.run
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e . --group test --group lint
	@touch $@

# Links under the package's own name, since the repository is the package: type checkers and the import contract look here.
.PHONY: $(TYPES)
$(TYPES):
	@mkdir -p $@
	@for name in $(TREE); do ln -sfn ../../../$$name $@/$$name; done
