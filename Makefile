# Two commands matter: `make demo` runs the main job, `make test` passes the tests. Both bootstrap .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-workers test-replicas lint bench bench-accept bench-peers bench-results bench-report quality sbom lock envoy clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

# The lock pins every package by hash; the project itself is installed in place, without resolving anything.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"macrofleet needs Python 3.11 to 3.13, found {v[0]}.{v[1]}: run make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --no-compile --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@# On all cores, where pip would use one, and without packages' own tests. A few files are no Python, or another version's.
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib >/dev/null || true
	@touch $@

demo: $(INSTALLED) ## train, register, publish and serve a small fleet (KEEP=1 leaves the server running)
	@$(BIN)/macrofleet demo $(if $(KEEP),--keep) $(DEMO_ARGS)

test: $(INSTALLED) ## run the tests, two at a time by file (PYTEST_ARGS=… is handed to pytest: "-n 0" for one at a time)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore=tests/workers --ignore=tests/replicas tests $(PYTEST_ARGS)

test-workers: $(INSTALLED) ## tests of real Prefect workers, machines that are cut off and the composition brought up (as root), and Ray nodes (with macrofleet[ray]), on a quiet machine
	$(BIN)/python -m pytest tests/workers $(PYTEST_ARGS)

test-replicas: $(INSTALLED) ## servers behind Envoy, under load, while they die, come and go, and an upgrade and the way back: minutes of all cores
	$(BIN)/python -m pytest tests/replicas $(PYTEST_ARGS)

lint: $(INSTALLED) ## ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED) ## run the pytest-benchmark suites and hold them to benchmarks/baseline.json (BENCH_ARGS="--only featurise")
	$(BIN)/python -m benchmarks.regressions $(BENCH_ARGS)

bench-accept: $(INSTALLED) ## take a new benchmarks/baseline.json, on a quiet machine (BENCH_ARGS="--only featurise")
	$(BIN)/python -m benchmarks.regressions --accept $(BENCH_ARGS)

bench-peers: $(INSTALLED) ## our server beside those that people would pick instead, each installed by the script (PEERS_ARGS="--quick")
	$(BIN)/macrofleet bench peers --json $(PEERS_ARGS)

bench-results: $(INSTALLED) ## measure what the report shows, on a quiet machine (RESULTS="warm cold", or --computed; by default all, 15 minutes)
	$(BIN)/python -m benchmarks.report.measure $(RESULTS)

bench-report: $(INSTALLED) ## write docs/benchmarks.md, its plots and CSV files from benchmarks/results
	$(BIN)/python -m benchmarks.report

quality: $(INSTALLED) ## measure suggestions on the data sets below DATA=… and rewrite docs/quality.md (QUALITY_ARGS="--program bag")
	@test -n "$(DATA)" || { echo "make quality DATA=folder: it holds banking77/banking77.csv and the like"; exit 1; }
	$(BIN)/python -m training.quality --data "$(DATA)" $(QUALITY_ARGS)

sbom: $(INSTALLED) ## write what the images are made of as CycloneDX, into sbom/ (OUT=folder)
	$(BIN)/python -m infra.sbom --out $(or $(OUT),sbom)

# Locks name packages, versions and hashes, and no index address.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock: ## compile the locks: everything, the two images, what builds the wheel (needs uv on PATH)
	$(LOCK) --extra dev pyproject.toml --output-file requirements.lock
	sed -n 's/^tensorflow==\([^ ]*\).*/tensorflow-cpu==\1/p' requirements.lock \
	  | $(LOCK) --extra serving --constraint requirements.lock --excludes infra/image-excludes.txt pyproject.toml - --output-file requirements-serving.lock
	sed -n 's/^tensorflow==\([^ ]*\).*/tensorflow-cpu==\1/p' requirements.lock \
	  | $(LOCK) --extra flows --extra console --extra postgresql --extra tracking-server --constraint requirements.lock \
	    --excludes infra/image-excludes.txt pyproject.toml - --output-file requirements-flows.lock
	echo hatchling | $(LOCK) --constraint requirements.lock - --output-file infra/wheel.lock

envoy: $(INSTALLED) ## write infra/envoy/*.json anew, each from the arguments beside it, and the gateway's of them
	@for args in infra/envoy/*.args; do $(BIN)/macrofleet proxy-config $$(cat $$args) --out $${args%.args}.json; done
	@$(BIN)/python infra/gateway/make_gateway.py

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
