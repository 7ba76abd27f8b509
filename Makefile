# Every target sets up .venv by itself on a machine that has Python (>= 3.10, with venv) and make; quick the second time.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-gpu test-slow lint benchmark docs wheel clean

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

demo: $(READY)  ## the whole UCI pipeline on phantoms, ending in demo_output/report.html
	$(BIN)/nnunet_ext demo -o demo_output -device cpu

test: $(READY)  ## the default tests
	$(BIN)/python -m pytest -q

test-gpu: $(READY)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -q -m "slow and not gpu"

lint: $(READY)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(READY)  ## speed and memory, each against a named peer
	for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

docs: $(READY)  ## the documentation as HTML, in docs/_build
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	$(BIN)/python -m sphinx -W -q docs docs/_build

wheel: $(READY)  ## build, install into an empty environment, ask for help
	rm -rf dist build/wheel_venv
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel_venv
	build/wheel_venv/bin/python -m pip install --quiet dist/*.whl
	cd build && wheel_venv/bin/nnunet_ext --help
	cd build && wheel_venv/bin/python -c "import os, nnunet_ext.cli.env as e; os.environ['nnUNet_extTrainer'] = str(e.trainer_folder()); \
	from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find; print(find('UCITrainer'))"
	rm -rf build/wheel_venv

clean:
	rm -rf .venv build dist demo_output
