# Two commands for a newcomer: make quickstart, make test. Both make .venv first if it is not there.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# What is installed: the training stack and the tools of development, at the versions of constraints.txt.
EXTRAS ?= train,dev
# Further options for pip, for example an index of CPU-only builds of torch.
PIP_ARGS ?=
CONSTRAINTS ?= constraints.txt
STAMP  := $(VENV)/.installed
# Processes of pytest; the tests of one file stay in one of them, as they share what is costly to make.
WORKERS ?= 2
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install quickstart test test-fast test-thorough lint format clean

install: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "no Python with venv found: install Python >= 3.11 with its venv module, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(BIN)/python --version) is too old: Python >= 3.11 is needed; say make PYTHON=/path/to/python3.11 (after rm -r $(VENV))" >&2; exit 1; }
	@echo "installing into $(VENV): torch and the training stack, for some minutes without a word"
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) $(PIP_ARGS) --editable '.[$(EXTRAS)]'
	@touch $@

quickstart: $(STAMP)
	$(BIN)/rlvr quickstart $(ARGS)

test: lint
	$(PYTEST) $(ARGS)

test-fast: lint
	$(PYTEST) -m 'not gpu and not slow and not thorough' $(ARGS)

test-thorough: $(STAMP)
	$(PYTEST) -m thorough $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
