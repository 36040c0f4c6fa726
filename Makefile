# make demo   install into .venv and make an example in demo/
# make test   install and run the whole test suite
# make lint   style and types
# make docs   build the documentation site into build/site; any broken link or reference is an error
# make picture   draw the README's picture again, from the built-in singer

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
RUN := $(VENV)/bin/python
# What Python compiles is kept, whoever said not to: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint picture docs clean

demo: $(VENV)/installed
	$(RUN) -m melisma demo demo

# Two workers on two cores: with more threads each they would only wait for each other.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "the documentation is in build/site/index.html"

picture: $(VENV)/installed
	$(RUN) -m melisma demo --singer demo
	mkdir -p docs/images
	$(RUN) -c "from PIL import Image; \
		Image.open('demo/example.png').quantize(96).save('docs/images/demo.png', optimize=True)"

$(RUN):
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed: apt install python3.11 python3.11-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is too old: Python 3.11 or newer is needed, or make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "error: the venv module is missing: apt install python3-venv"; exit 1; }

# Python compiles what it imports; what it never does, most of torch for one, need not be compiled at all.
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# Torch comes first and pinned: left to itself, pip might choose another build of it for each of the packages that want one.
$(VENV)/installed: pyproject.toml constraints.txt | $(RUN)
	$(INSTALL) torch
	$(INSTALL) --editable .
	@touch $@

# Meanwhile the kernels are compiled, which the tests would wait for.
$(VENV)/installed-dev: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) -m melisma.inference.compiling & $(INSTALL) --editable '.[dev]' && wait $$!
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(INSTALL) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) demo
