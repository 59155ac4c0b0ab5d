# Everything a fresh machine needs: `make run` (the main job), `make test` (all checks), `make .venv` (set-up only).
# Options of `make run`, as in `make run DURATION=60 TAPE=trades.csv L1=anvil JSON=summary.json`:
#   TAPE=path      a trade tape to replay; without it a seeded synthetic market
#   CHAIN=path     a recorded option chain for the volatility surface; without it a model
#   L1=...         embedded (default), anvil, or the URL of an L1 node
#   DURATION=s     trade at most so many seconds, and end; without it the node serves until Ctrl-C
#   JSON=path      write a summary of the run
PYTHON ?= python3
PY := .venv/bin/python
NODE := $(shell command -v npm 2>/dev/null)
# Tests that start nodes wait for them: one more than there are cores keeps these busy.
WORKERS ?= $(shell n=$$(nproc); [ $$n -gt 7 ] && echo 8 || expr $$n + 1)

.PHONY: run test lint unit pure contracts bench compiled clean

run: compiled $(if $(filter anvil,$(L1)),contracts/node_modules)
	@TAPE="$(TAPE)" CHAIN="$(CHAIN)" L1="$(L1)" DURATION="$(DURATION)" JSON="$(JSON)" $(PY) -m tools.main_job

# Its four parts stand alone: `make -j2 test` does two of them at a time.
test: lint unit pure contracts

lint: .venv
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

unit: compiled $(if $(NODE),contracts/node_modules)
	$(PY) -m pytest -n $(WORKERS) --dist worksteal --durations 20
ifndef NODE
	@echo "SKIPPED without Node: tests on anvil"
endif

# Golden vectors and random traffic without the compiled modules.
pure: .venv
	STRADDLE_PURE=1 $(PY) -m pytest -q tests/vectors tests/property/test_transition_total.py

contracts: .venv $(if $(NODE),contracts/node_modules contracts/.slither)
ifdef NODE
	cd contracts && npx forge fmt --check
	cd contracts && npm test --silent
	cd contracts && npm run --silent check-artifacts
	PATH="$(CURDIR)/contracts/.slither/bin:$$PATH" contracts/tools/slither.sh
else
	@echo "SKIPPED without Node: Foundry tests, recompiling the contract artifacts, Slither"
endif

bench: compiled
	$(PY) -m tools.bench

.venv: .venv/.ok
.venv/.ok: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Straddle needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# The hot modules of state/ as C, where there is a compiler; does nothing when they are current.
compiled: .venv
	@$(PY) -m tools.compile_state

contracts/node_modules: contracts/package-lock.json
	cd contracts && npm ci --silent --no-audit --no-fund
	@touch $@

contracts/.slither:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check slither-analyzer==0.11.6 || { rm -rf $@; exit 1; }

clean:
	rm -rf .venv state/_compiled contracts/.slither contracts/node_modules contracts/out contracts/cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
