# One word for each habit. Needs Python 3.11 or newer and git; all else is installed into .venv
# (.venv-clients for test-clients, .venv-fmriprep for test-fmriprep, .venv-cuda for kernels,
# .venv-dist for dist, .venv-docs for docs).
# For an NVIDIA GPU: make demo JAX=cuda12 (or cuda13), in a fresh .venv.
# The image is for CPU and GPU, unless: make image JAX=cpu.
PYTHON ?= python3
JAX ?= cpu
DIR ?= demo
JOBS ?= 2
ARGS ?=
MINUTES ?= 1

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

.PHONY: help demo screenshots test test-large fuzz test-clients test-fmriprep notebook lint format bench validate masks
.PHONY: image constraints test-container kernels quality quality-full dist docs
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make demo          simulate a BIDS dataset in DIR=$(DIR), correct it, compare with the truth"
	@echo "make test          the tests; ARGS='-k n4 -x' goes to pytest, JOBS=$(JOBS) at a time"
	@echo "make test-large    the tests that take minutes or gigabytes"
	@echo "make test-clients  the tests on niworkflows, smriprep and sdcflows, in .venv-clients"
	@echo "make test-fmriprep  fMRIPrep's workflow for head motion, in .venv-fmriprep"
	@echo "make image         the container image, by docker, podman or buildah; JAX=cpu: without CUDA"
	@echo "make test-container  images built and run by Docker and Apptainer: needs root on Debian"
	@echo "make dist          wheel and source distribution in dist, checked"
	@echo "make constraints   the versions in the image, anew"
	@echo "make fuzz          hostile files by the thousand, for MINUTES=$(MINUTES)"
	@echo "make lint          ruff for style and format, mypy for types, actionlint where there is one"
	@echo "make format        let ruff put both right"
	@echo "make docs          the documentation as a site, in site; a warning is an error"
	@echo "make screenshots   pictures of the report for docs, by Chromium"
	@echo "make notebook      runs and writes the notebooks of docs and their figures"
	@echo "make bench         time and memory, beside ITK and ANTs; writes docs/benchmarks: 20 minutes"
	@echo "make kernels       count what the loop costs on a GPU that is not there, in .venv-cuda"
	@echo "make masks         compare masks, presets, and files of one head written differently"
	@echo "make quality       compare every method on known fields and labelled heads: half an hour"
	@echo "make quality-full  the same with all peers on every case, for hours; goes on where it ended"
	@echo "make validate      compare numbers with ITK and ANTs: an hour, needs the real images"

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py $(DIR)

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m "not clients and not fmriprep and not large" $(ARGS)

test-large: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m large $(ARGS)

fuzz: $(VENV)/test.stamp
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# In an environment of their own: what they depend on is theirs to choose.
test-clients:
	@$(MAKE) --no-print-directory VENV=.venv-clients .venv-clients/clients.stamp
	.venv-clients/bin/python -m pytest -m clients $(ARGS)

test-fmriprep:
	@$(MAKE) --no-print-directory VENV=.venv-fmriprep .venv-fmriprep/fmriprep.stamp
	.venv-fmriprep/bin/python -m pytest -m fmriprep $(ARGS) tests/interfaces/test_fmriprep.py

# The default of JAX above is for .venv.
IMAGE_JAX := $(if $(filter file,$(origin JAX)),cuda12,$(JAX))
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUILDER = $(firstword $(foreach program,docker podman buildah,$(shell command -v $(program))))

image:
	@test -n "$(BUILDER)" || { echo "make image: needs docker, podman or buildah" >&2; exit 1; }
	$(BUILDER) build --build-arg JAX=$(IMAGE_JAX) --build-arg VERSION=$(VERSION) \
		--tag n4ax-bids:$(VERSION)-$(IMAGE_JAX) --tag n4ax-bids .

# In an environment of its own, because the tools of a release have many dependencies.
dist:
	@test -x .venv-dist/bin/python || $(PYTHON) -m venv .venv-dist
	@.venv-dist/bin/python -m pip -qq --disable-pip-version-check install \
		'build>=1.2' 'twine>=6' 'check-wheel-contents>=0.6'
	rm -rf dist
	.venv-dist/bin/python -m build
	.venv-dist/bin/twine check --strict dist/*
	.venv-dist/bin/check-wheel-contents dist
	.venv-dist/bin/python packaging/check_dist.py dist

constraints:
	PYTHON=$(PYTHON) container/constrain.sh

# CUDA=1 builds the image with CUDA as well.
test-container: $(VENV)/test.stamp
	PYTHON=$(CURDIR)/$(BIN)/python tests/container/run.sh

# In an environment of its own. The reference is read from the source, so nothing is imported.
docs:
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip -qq --disable-pip-version-check install \
		'mkdocs-material>=9.6,<10' 'mkdocstrings[python]>=0.29' 'mkdocs-jupyter>=0.25' 'ruff>=0.12'
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# Of the report's pages, for docs; needs Chromium with its driver.
screenshots: $(VENV)/test.stamp
	N4AX_SCREENSHOTS=docs $(BIN)/python -m pytest tests/app/reports/test_browser.py

notebook: $(VENV)/test.stamp
	$(BIN)/python examples/realign_notebook.py
	$(BIN)/python examples/correction_notebook.py
	$(BIN)/ruff format --quiet docs/*.ipynb

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	if command -v actionlint > /dev/null; then actionlint; fi

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.command
	$(BIN)/python -m benchmarks.iteration
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.app --out docs/benchmarks/app.md
	$(BIN)/python -m benchmarks.app_masks
	$(BIN)/python -m benchmarks.files
	$(BIN)/python -m benchmarks.host_work

# Compiled for a GPU, but run on the CPU.
kernels:
	@$(MAKE) --no-print-directory VENV=.venv-cuda JAX=cuda13 .venv-cuda/test.stamp
	JAX_PLATFORMS=cpu .venv-cuda/bin/python -m benchmarks.kernels $(ARGS)

quality: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.quality

quality-full: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.quality --full --resume

validate: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.parity
	$(BIN)/python -m benchmarks.ants_parity

masks: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.masks
	$(BIN)/python -m benchmarks.samples
	$(BIN)/python -m benchmarks.presets
	$(BIN)/python -m benchmarks.invariance
	$(BIN)/python -m benchmarks.adaptive

# One stamp for each extra: it is older than pyproject.toml when the installation is out of date.
$(VENV)/%.stamp: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (a minute or two the first time)"
	@$(PIP) install --editable '.[$(JAX),app,stack,$*]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python %d.%d is too old; say make PYTHON=... with 3.11 or newer" % v[:2])'
	@$(PYTHON) -m venv $(VENV)
