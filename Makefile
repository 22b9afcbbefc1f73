# `make demo` and `make test` install into .venv/ by themselves; a second call installs nothing.
# PYTHON chooses the interpreter, DEMO_ARGS and TEST_ARGS pass options through (make demo DEMO_ARGS=--short).
PYTHON ?= python3
DEMO_ARGS ?=
TEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt
# Two files of tests at a time, each on one core (TEST_ARGS="-n 0": one, as a debugger wants it).
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
FAST := not slow and not multiprocess and not gpu and not browser

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(BIN)/llava-lite demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev
	$(PYTEST) $(TEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(PYTEST) -m "$(FAST)" $(TEST_ARGS)

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is touched only after its last command succeeded, so an interrupted installation is taken up again.
$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "llava-lite needs Python 3.10 or newer; set PYTHON")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# torch alone and first: the pinned version takes the CPU build where pip can find one, and deepspeed, which other
# packages would build from source, finds it in place.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.created
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@
