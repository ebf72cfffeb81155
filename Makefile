# One door to everything that is done by hand here. A fresh machine needs Python >= 3.11 and make.
#
#   make test                        with `python3`, in .venv
#   make test PYTHON=python3.12      with another Python, in a virtual environment of its own

PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
WORKERS ?= 2

# What is compiled as users do; all other tests by a quicker way of XLA. See tests/quick.py.
AS_USERS := tests/benchmarks tests/guard/test_hold.py tests/guard/test_last_cast.py tests/guard/test_promises.py \
  tests/guard/test_scopes.py tests/persistence

# The same among slow tests; most of these train for minutes, which quickly compiled programs do slowly.
SLOW_AS_USERS := tests/benchmarks tests/cli tests/docs tests/persistence examples

# All that pytest collects by itself (testpaths in pyproject.toml).
TESTS := tests gradstable examples README.md docs

LOCK := requirements/dev.txt

# Tests of other frameworks have an environment of their own, whoever asks for them.
ifneq (,$(findstring tests/frameworks,$(ARGS)))
VENV := .venv-frameworks$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
LOCK := requirements/frameworks.txt
endif

BIN := $(VENV)/bin

# Tests of one file stay with one worker for as long as they can: what they compile is shared.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
QUICKLY = XLA_FLAGS="$$($(BIN)/python -m tests.quick)"

# Nothing below may wait for an answer, and the type checker shall not ask a server for its version.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test durations quick slow frameworks gauntlet lowest wheel lint format bench speed catalog docs lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## create the virtual environment from the lock (once)

# Two stamps: a changed lock rebuilds the environment, a changed pyproject.toml only reinstalls the project. What counts is
# the content of the lock, not its time: a checkout of another branch and back rebuilds nothing.
$(VENV)/.locked: $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gradstable needs Python >= 3.11; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@if [ "$$(cat $@ 2>/dev/null)" = "$$(cksum < $(LOCK))" ]; then touch $@; else \
	  echo "building $(VENV) from $(LOCK)" && \
	  $(PYTHON) -m venv --clear $(VENV) && \
	  $(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK) && \
	  cksum < $(LOCK) > $@; fi

$(VENV)/.installed: $(VENV)/.locked pyproject.toml benchmarks/gauntlet/pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation \
	  --editable . --editable benchmarks/gauntlet
	@touch $@

demo: venv ## train through a storm with and without the guard; writes demo-out/
	$(BIN)/gradstable demo --out demo-out

test: venv ## run the tests and every example in the documentation
ifdef ARGS
	$(PYTEST) $(ARGS)
else
	$(QUICKLY) $(PYTEST) --junitxml .pytest_cache/tests-quick.xml $(TESTS) $(AS_USERS:%=--ignore=%)
	$(PYTEST) --junitxml .pytest_cache/tests-as-users.xml $(AS_USERS)
endif

durations: ## show where the time of the last `make test` went
	$(BIN)/python -m tests.durations .pytest_cache/tests-*.xml $(ARGS)

quick: venv ## run what tells most in under a minute
	$(QUICKLY) $(PYTEST) -x \
	  tests/core tests/test_architecture.py tests/test_public_api.py tests/test_argument_names.py \
	  tests/test_errors.py tests/test_repr.py tests/rules/test_log_mad.py tests/guard/test_hold.py $(ARGS)

slow: venv ## run the tests that take minutes
ifdef ARGS
	$(PYTEST) -m slow $(ARGS)
else
	$(QUICKLY) $(PYTEST) -m slow $(TESTS) $(SLOW_AS_USERS:%=--ignore=%)
	$(PYTEST) -m slow $(SLOW_AS_USERS)
	$(MAKE) frameworks
endif

frameworks: ## train with Equinox, Haiku, NumPyro, Keras, Tunix, ... in an environment of their own
	$(MAKE) slow ARGS="tests/frameworks $(ARGS)"

gauntlet: venv ## test benchmarks/gauntlet, which is a distribution of its own
	$(PYTEST) benchmarks/gauntlet/tests $(ARGS)

# XLA decides how many words are moved: these counts hold from jax 0.10.2 on.
COUNTS := tests/rules/test_cost.py tests/telemetry/test_cost.py \
  tests/recipes/test_stable_adamw.py::test_it_moves_fourteen_words_where_adamw_moves_eleven \
  tests/recovery/test_rollback.py::test_off_the_copy_it_moves_a_word_or_none

# The tests run with the versions under test; only uv is that of the usual environment.
lowest: private PYTEST := $(subst $(BIN)/,.venv-lowest/bin/,$(PYTEST))
lowest: private QUICKLY := $(subst $(BIN)/,.venv-lowest/bin/,$(QUICKLY))
lowest: venv ## run the heart of the tests with the lowest versions that pyproject.toml allows
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct \
	  --editable '.[all]' --group tests
	$(QUICKLY) $(PYTEST) -W ignore::DeprecationWarning $(addprefix tests/,core guard rules moments recipes recovery telemetry) \
	  $(COUNTS:%=--deselect=%) $(ARGS)

wheel: venv ## build the wheels, and use ours in an environment with nothing else, then with an extra
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . ./benchmarks/gauntlet
	$(PYTHON) -m venv build/installed
	build/installed/bin/python -m pip install --quiet dist/gradstable-*.whl
	cd build && installed/bin/python -P ../tests/installed.py
	build/installed/bin/python -m pip install --quiet "$$(echo dist/gradstable-*.whl)[demo]"
	cd build && installed/bin/python -P ../tests/installed.py demo

lint: venv ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pyright --pythonpath $(BIN)/python --project pyright.strict.json

format: venv ## fix what can be fixed in style and format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: venv ## measure what protection costs: words moved, step time, compile time
	$(BIN)/python -m benchmarks.cost $(ARGS)

speed: venv ## measure steps beside bare ones, torch and the memory's bandwidth (ARGS="--quick")
	$(BIN)/python -m benchmarks.speed $(ARGS)

catalog: venv ## write docs/catalog.md and docs/rules_table.md, with measured figures
	$(BIN)/python -m benchmarks.catalog
	$(BIN)/python -m benchmarks.rules_table --markdown docs/rules_table.md

docs: venv ## build the documentation into docs/_build/html, run its notebooks, check what it loads
	rm -rf docs/_build
	$(BIN)/python -m sphinx -W --keep-going -b html $(ARGS) docs docs/_build/html
	$(BIN)/python -m tests.docs.site docs/_build/html

lock: venv ## resolve requirements/dev.txt anew, keeping pins that still hold (UPGRADE=1: newest)
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	  --extra all --group dev $(if $(UPGRADE),--upgrade) --custom-compile-command "make lock" \
	  --output-file $(LOCK)
	$(BIN)/uv pip compile --group frameworks --quiet --universal --python-version 3.11 --generate-hashes \
	  --constraints $(LOCK) $(if $(UPGRADE),--upgrade) --custom-compile-command "make lock" \
	  --output-file requirements/frameworks.txt

clean: ## remove virtual environments, caches and everything built
	rm -rf .venv .venv-* build dist demo-out gauntlet-out docs/_build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
