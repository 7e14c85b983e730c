# Everything that is done to this project, by name. `make help` lists it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test bench bench-small lint format diagrams endurance journals fixtures clean verify test-cloud

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	@touch $@

demo: $(STAMP) ## Export five charts through two accounts from the bundled simulator
	@$(BIN)/python -m engine.testing.demo

test: $(STAMP) ## All tests, the linters and the type checker
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-cloud: $(STAMP) ## What runs on Google Cloud, on its emulators (needs Java and the Firestore emulator)
	DETENT_SLOW_TESTS=1 $(BIN)/python -m pytest tests/cloud tests/store/test_firestore.py tests/artifacts/test_gcs.py \
	  tests/artifacts/test_gcs_faults.py tests/end_to_end/test_cloud_storage.py tests/end_to_end/test_contract.py

bench: $(STAMP) ## Measure speed side by side with others, on a bare and a slow disk
	$(BIN)/python -m benchmarks $(BENCH)

bench-small: $(STAMP) ## The minute of it that CI gates on: counts and ratios, no times
	$(BIN)/python -m benchmarks --small

EXPORT := machines/chart_export.yaml --load fixtures/documents --input '{"run_id": "20260105-080000_BTCUSDT_k3f7a"}'

verify: $(STAMP) ## Every pair of crashes of an export of three charts, and 5,000 of one of eight: minutes
	$(BIN)/detent verify $(EXPORT) --pairs all --kind crash-pair
	$(BIN)/detent verify $(EXPORT) --pairs 2000
	$(BIN)/detent verify $(EXPORT) --pairs 1000 --semantics preconditions
	$(BIN)/detent verify $(EXPORT) --items 8 --pairs 5000 --kind crash-pair

lint: $(STAMP) ## The linters and the type checker alone
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(STAMP) ## Format the code
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

diagrams: $(STAMP) ## Draw the pictures of the project's machines again
	$(BIN)/detent visualize machines/chart_export.yaml -o docs/images/chart_export.svg
	$(BIN)/detent visualize machines/chart_request.yaml -o docs/images/chart_request.svg

endurance: $(STAMP) ## Kill workers for a minute while runs come in, and account for everything
	DETENT_ENDURANCE_S=60 $(BIN)/python -m pytest tests/endurance

journals: $(STAMP) ## Write the journals that later releases must replay, beside those that are there
	$(BIN)/python -m engine.testing.journals fixtures/journals
	$(BIN)/python -m tests.end_to_end.test_steering fixtures/journals

fixtures: $(STAMP) ## Record the committed fixtures and cassette again, against the simulator
	$(BIN)/python -m engine.testing.recording

clean: ## Remove what was made here
	rm -rf $(VENV) .detent .mypy_cache .ruff_cache .hypothesis
