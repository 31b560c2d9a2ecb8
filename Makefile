# Each target sets up everything that it needs; nothing else has to be run first.
PYTHON ?= python3
MINUTES ?= 20
VENV := .venv
BIN := $(VENV)/bin

# Where this variable is set, as in some containers, Python keeps no compiled modules. Each of the
# hundreds of processes below would then compile torch again, which takes 3 seconds.
unexport PYTHONDONTWRITEBYTECODE

# Two workers, each of which runs whole files: see tests/workers.py.
PYTEST := $(BIN)/python -m pytest -n 2

# Makes torch, oneDNN, MKL and numba work as on a CPU without AVX-512.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2 \
	NUMBA_CACHE_DIR=$(CURDIR)/$(VENV)/numba-avx2

.PHONY: setup setup-locked lock audit demo test test-slow test-avx2 bench-avx2 examples fuzz lint docs pictures vendor wheel clean

setup: $(VENV)/.installed

# Rebuilt when the pins or the package's own metadata change.
$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The packages of docs or examples besides.
$(VENV)/.installed-%: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	touch $@

# The same versions, each file checked against its hash; then the package without dependencies. On
# Linux, this takes torch from PyPI, which brings CUDA along (3 GB).
setup-locked: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(VENV)/.installed $(VENV)/.installed-docs

# Needs uv and PyPI. Run it after a change of constraints.txt. If a package cannot be resolved,
# requirements.lock stays as it was.
lock:
	@command -v uv > /dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	uv pip compile --quiet --no-config --default-index https://pypi.org/simple --universal \
		--python-version 3.11.5 --generate-hashes --no-annotate --no-header --constraint constraints.txt \
		--extra dev --extra docs pyproject.toml --output-file requirements.lock
	{ echo '# Made by `make lock` from pyproject.toml and constraints.txt. Do not edit.'; \
		cat requirements.lock; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

# Known vulnerabilities of the locked versions. Needs uv and the database of PyPI. With --strict, a
# package that the database does not know is a failure, since it was not looked up.
audit:
	@command -v uvx > /dev/null || { echo "make audit needs uv: pip install uv" >&2; exit 1; }
	@found=$$(uvx pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock 2>&1); \
	status=$$?; \
	case "$$found" in *"could not be audited"* | *Traceback* | *ConnectionError* | *"Failed to fetch"*) \
		echo "$$found" | tail -n 1 >&2; \
		echo "make audit: the database of PyPI (https://pypi.org/pypi/NAME/VERSION/json) does not answer" \
			"here, so nothing was checked" >&2; \
		exit 1;; \
	esac; \
	echo "$$found"; exit $$status

demo: setup
	$(BIN)/cdd demo

test: setup
	$(PYTEST)

# The long forms of some tests.
test-slow: setup
	$(PYTEST) -m slow

# All tests as on a CPU with AVX2 only. Needs an x86-64 CPU. PATHS may name some tests.
test-avx2: setup
	$(AVX2) $(PYTEST) $(PATHS)

# How far each operation is from its bound, as on a CPU with AVX2 only; make prints the variables
# that force it. KG may name a graph. Needs an x86-64 CPU.
bench-avx2: setup
	$(AVX2) $(BIN)/python benchmarks/roofline.py $(KG)

# Runs each file of examples/, with its packages (about 250 MB).
examples: $(VENV)/.installed-examples
	$(BIN)/python -m pytest -m slow tests/test_examples.py

# The fuzzers, one after the other; see tests/fuzz/fuzz.py.
fuzz: setup
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	for target in graph embeddings model checkpoint; do \
		$(BIN)/python tests/fuzz/fuzz.py $$target --minutes $(MINUTES) || exit 1; \
	done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

# The pictures of the README and of cdd map, and those of cdd explore and cdd report in docs/guide,
# which need Chromium. PICTURES is the directory of the latter.
pictures: setup
	$(BIN)/python .ci/draw_pictures.py docs/_static
	$(BIN)/python .ci/take_pictures.py $(or $(PICTURES),docs/guide)

# The JavaScript library of cdd explore, from npm.
vendor:
	$(PYTHON) .ci/vendor.py

# Builds the wheel, checks its files, and tries it in a new environment (some minutes).
wheel: setup
	rm -rf dist build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(BIN)/python .ci/try_wheel.py dist/*.whl

clean:
	rm -rf $(VENV) docs/_build build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
