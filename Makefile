# Every target makes its own environment first: nothing has to be installed by hand but Python 3.11+.

BIN := .venv/bin
READY := .venv/.ready
SOURCES := producer projector shared console infra tests

.PHONY: help
help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(READY): pyproject.toml uv.lock tools/bootstrap
	./tools/bootstrap
	@touch $@

.PHONY: demo
demo: $(READY) ## Run the main job on the embedded default
	$(BIN)/run-log demo

.PHONY: test
test: $(READY) ## Run the whole suite, on two cores
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

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

.PHONY: types
types: $(READY) ## Type-check, with both checkers
	$(BIN)/mypy
	$(BIN)/pyright --warnings

.PHONY: layers
layers: $(READY) ## Check that no package imports from above
	$(BIN)/lint-imports

.PHONY: check
check: lint types layers test ## What CI runs

.PHONY: format
format: $(READY) ## Format and apply safe fixes
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

.PHONY: bench
bench: $(READY) ## Measure, beside baselines in the same run
	$(BIN)/python -m tests.benchmarks

N := 2000
SEED := 0
.PHONY: simulate
simulate: $(READY) ## Run N schedules of projectors, broker and store under faults: make simulate N=10000
	$(BIN)/python -m tests.simulation --schedules $(N) --seed $(SEED)

.PHONY: fuzz
fuzz: $(READY) ## Send N odd bodies through all that decodes them: make fuzz N=100000 SEED=1
	$(BIN)/python -m tests.fuzz --bodies $(N) --seed $(SEED)

.PHONY: trace
trace: $(READY) ## Replay the real trace through both emulators and verify every run
	$(BIN)/python -m tests.e2e.trace_replay

.PHONY: emulators
emulators: $(READY) ## Run both emulators until Ctrl-C, and say how to use them
	$(BIN)/python -m run_log.testing

.PHONY: schema
schema: $(READY) ## Write the event's JSON Schema; a changed one needs a new SCHEMA_VERSION
	$(BIN)/python -m tests.golden.schema

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
	rm -rf .venv .venv-beam .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist
