# Every target makes its own environment first: nothing has to be installed by hand but Python 3.11+.

BIN := .venv/bin
READY := .venv/.ready
# What needs the package alone gets an environment of its own, small and quick to make, unless the whole one is there.
SMALL := $(if $(wildcard $(READY)),.venv,.venv-base)
SOURCES := producer projector dashboard shared console infra tests
# Some images set it. Each of the hundreds of processes that the tests start would then compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(READY): pyproject.toml uv.lock tools/bootstrap
	./tools/bootstrap
	@touch $@

.venv-base/.ready: pyproject.toml tools/base.txt tools/bootstrap
	./tools/bootstrap base
	@touch $@

# With what the dashboard needs besides.
.venv-base/.dashboard: .venv-base/.ready tools/dashboard.txt
	./tools/bootstrap dashboard
	@touch $@

.PHONY: demo
demo: $(SMALL)/.ready ## Run the main job on the embedded default
	$(SMALL)/bin/run-log demo
	@echo "To look at such runs in a browser: make dashboard"

.PHONY: dashboard
dashboard: $(if $(wildcard $(READY)),$(READY),.venv-base/.dashboard) ## Show sample workflows that keep running, in a browser, until Ctrl-C
	$(SMALL)/bin/run-log dashboard --sample

.PHONY: test
test: $(READY) ## Run the whole suite, on two cores: two more processes fill the time in which others wait
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal

.PHONY: quick
quick: $(READY) ## Run what needs no emulator, starts no process and searches for nothing for long
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --ignore tests/e2e -m "not emulator and not process and not search" $(ARGS)

.PHONY: thorough
thorough: $(READY) ## Try ten times as many examples of each property
	$(BIN)/python -m pytest --hypothesis-profile thorough tests/property $(ARGS)

.PHONY: test-any-hour
test-any-hour: $(READY) ## Run the tests at midnight, at a month's end, on 29 February and in other time zones; needs a C compiler
	$(BIN)/python -m tests.any_hour $(ARGS)

PYTHON := 3.13
.PHONY: test-python
test-python: $(READY) ## Run what needs no emulator on another Python: make test-python PYTHON=3.12
	UV_PROJECT_ENVIRONMENT=.venv-$(PYTHON) $(BIN)/uv sync --quiet --locked --all-extras --no-extra beam --python $(PYTHON)
	.venv-$(PYTHON)/bin/python -m pytest -m "not emulator" $(ARGS)

.PHONY: test-lowest
test-lowest: $(READY) ## Run what needs no emulator on the oldest versions that pyproject.toml allows
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python .venv-lowest/bin/python pyproject.toml \
		--extra producer --extra stores --extra projector --extra dashboard --extra archive --extra openlineage --extra import \
		--output-file .venv-lowest/lowest.txt
	$(BIN)/uv pip install --quiet --python .venv-lowest --requirements .venv-lowest/lowest.txt --group dev --editable .
	@# Of the test tools the newest are taken: anyio's plugin, which no test uses, warns with pytest's.
	.venv-lowest/bin/python -m pytest -p no:anyio -m "not emulator" $(ARGS)

.PHONY: coverage
coverage: $(READY) ## Run the whole suite, slower, and tell what it does not reach
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	-$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: lint
lint: $(READY) ## Lint and format, without changing anything
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

.PHONY: types mypy pyright
types: mypy pyright ## Type-check, with both checkers

mypy: $(READY)
	$(BIN)/mypy

pyright: $(READY)
	$(BIN)/pyright --warnings

.PHONY: layers
layers: $(READY) ## Check that no package imports from above
	$(BIN)/lint-imports

.PHONY: check
check: $(READY) ## What CI runs: all checks at once, then the tests
	$(MAKE) --jobs 2 --output-sync lint types layers
	$(MAKE) test

.PHONY: format
format: $(READY) ## Format and apply safe fixes
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: bench
bench: $(READY) ## Measure, beside baselines in the same run
	$(BIN)/python -m tests.benchmarks

.PHONY: pictures
pictures: $(READY) ## Take the pictures in docs/pictures; needs Chromium
	$(BIN)/python -m tests.pictures

N := 2000
SEED := 0
.PHONY: simulate
simulate: $(READY) ## Run N schedules of projectors, broker and store under faults: make simulate N=10000
	$(BIN)/python -m tests.simulation --schedules $(N) --seed $(SEED)

.PHONY: fuzz
fuzz: $(READY) ## Give N odd inputs to each reader of foreign bytes: make fuzz N=100000 SEED=1
	$(BIN)/python -m tests.fuzz --inputs $(N) --seed $(SEED)

.PHONY: trace
trace: $(READY) ## Replay all of the trace through both emulators; make test takes a tenth of it
	$(BIN)/python -m tests.e2e.trace_replay
	RUN_LOG_TRACE_SHARE=1 $(BIN)/python -m pytest tests/e2e/test_trace_queries.py tests/e2e/test_trace_rebuild.py

.PHONY: emulators
emulators: $(SMALL)/.ready ## Run both emulators until Ctrl-C, and say how to use them
	$(SMALL)/bin/python -m run_log.testing

.PHONY: schema
schema: $(READY) ## Write the event's JSON Schema; a changed one needs a new SCHEMA_VERSION
	$(BIN)/python -m tests.golden.schema

EXPORT := $(BIN)/uv export --quiet --frozen --no-dev --no-emit-project --no-header --no-annotate
.PHONY: base
base: $(READY) ## Write what `make demo` and `make dashboard` install, from uv.lock
	$(EXPORT) --output-file tools/base.txt
	$(EXPORT) --extra dashboard --output-file tools/dashboard.txt

.PHONY: terraform
terraform: ## Check and test the Terraform module; RUN_LOG_TERRAFORM_CHECK names a program that can offline
	./tools/terraform-check

SBOM := dist/sbom.cdx.json
.PHONY: sbom
sbom: $(READY) ## List what an installation with every extra holds, and apart what Beam's does, as CycloneDX
	@mkdir -p $(dir $(SBOM))
	$(BIN)/uv export --quiet --locked --no-dev --all-extras --no-extra beam --preview-features sbom-export \
		--format cyclonedx1.5 --output-file $(SBOM)
	$(BIN)/uv export --quiet --locked --no-dev --extra beam --preview-features sbom-export \
		--format cyclonedx1.5 --output-file $(SBOM:.json=.beam.json)

.PHONY: audit
audit: $(READY) ## Look up known vulnerabilities of what is locked; needs the network
	@$(BIN)/uv audit --locked --preview-features audit || { \
		echo "audit: something is vulnerable, or the database could not be reached: see above" >&2; exit 1; }

.PHONY: clean
clean: ## Remove the environment and every cache
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist
