# Each target sets up what it needs; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
# The Python that makes the virtual environment, until there is one.
HOST_PYTHON = $(or $(wildcard $(BIN)/python),$(PYTHON))
# The versions that were tested, also of what builds this package: older pips take those from the
# first variable, newer ones from the second.
PIP_INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  $(BIN)/pip install --quiet
RECORDED := cloudlab/recordings
ARTICLE := default growpart-off resize-rootfs-false
# Of Debian, for test-fresh.
SUITE ?= trixie

# Images of containers set this; each worker and each command of the tests would compile anew.
unexport PYTHONDONTWRITEBYTECODE

# Target -> the jobs whose programs it needs.
NEEDS_demo := run build
NEEDS_lab := run
NEEDS_docs := run
NEEDS_test := run build test
NEEDS_test-fast := run build test
NEEDS_test-arm64 := run build foreign test
NEEDS_bench := run build test
NEEDS_gallery := run build foreign
NEEDS_atlas := run build
NEEDS_recordings := run build foreign
HOST := $(patsubst %,host-%,demo lab docs test test-fast test-arm64 bench gallery atlas recordings)

.PHONY: $(HOST) python-version help demo lab docs test test-fast test-arm64 test-fresh check bench figures gallery atlas \
  recordings slides fuzz constraints clean
.DELETE_ON_ERROR:
# Missing programs are installed, or named, before anything that takes time.
.NOTPARALLEL:

help:
	@echo "make demo         boot the article's three scenarios; results in build/demo/"
	@echo "make lab          open JupyterLab on the course"
	@echo "make docs         build the documentation; it opens with build/docs/index.html"
	@echo "make check        check formatting, lint, types and import directions"
	@echo "make test-fast    run the tests that need no VM, no browser and no image build"
	@echo "make test         run all checks and all tests"
	@echo "make test-arm64   build an arm64 image, boot the article's scenarios with it, warm start"
	@echo "make test-fresh   make demo and make test in a new root filesystem (SUITE=trixie); as root"
	@echo "make bench        measure time and memory, beside the article's own steps"
	@echo "make figures      draw README's figures from the shipped recordings"
	@echo "make gallery      boot every case of the gallery and compare with its recording"
	@echo "make recordings   the same, and replace the shipped recordings"
	@echo "make atlas        boot the atlas of growth, some 250 machines: an hour or two on two cores"
	@echo "make slides       make slides and a handout from the notebooks: build/slides.html"
	@echo "make fuzz         fuzz each parser for ten minutes"
	@echo "make constraints  write constraints.txt with the newest versions"
	@echo "make clean        remove what was built here, not the image cache"

demo: host-demo .venv/installed
	@if [ -e build/demo ]; then rm -rf build/demo.old && mv build/demo build/demo.old; fi
	$(BIN)/cloudlab demo --output build/demo

lab: host-lab .venv/installed
	$(BIN)/cloudlab lab

# The notebooks are executed on the shipped recordings.
docs: host-docs .venv/installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs . build/docs
	$(BIN)/python scripts/player.py build/docs/player

test: host-test .venv/installed-dev check
	$(BIN)/pytest -n 2 --dist loadgroup

# Many of these tests wait for something: two workers for each core take a fifth less time, and
# less still when each begins in another part of the suite, as tests that wait stand together.
# That ignores groups of tests, of which only boots, browsers and executed notebooks have need.
test-fast: host-test-fast .venv/installed-dev
	$(BIN)/pytest -n 4 --dist worksteal --hypothesis-profile few \
	  -m "not vm and not boots and not builds and not browser and not slow"

# On amd64 the packages alone take some ten minutes, under user emulation.
test-arm64: host-test-arm64 .venv/installed-dev
	$(BIN)/pytest -m arm64

test-fresh:
	scripts/fresh-root.sh $(SUITE) demo test

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: host-bench .venv/installed-dev
	$(BIN)/python scripts/bench.py

figures: .venv/installed
	@mkdir -p docs
	$(BIN)/cloudlab figure $(RECORDED)/default --kind disk-map --output docs/disk-map.svg
	$(BIN)/cloudlab figure $(RECORDED)/as-in-a-cloud --kind timeline --output docs/timeline.svg
	$(BIN)/cloudlab figure $(ARTICLE:%=$(RECORDED)/%) --kind scenarios --output docs/scenarios.svg

# Takes an hour or two on two cores; started again, it continues where it was stopped.
atlas: host-atlas .venv/installed
	$(BIN)/python scripts/atlas.py

gallery: host-gallery .venv/installed
	@rm -rf build/gallery
	$(BIN)/python scripts/gallery.py --output build/gallery

recordings: host-recordings .venv/installed-dev
	@rm -rf build/gallery
	$(BIN)/python scripts/gallery.py --output build/gallery --record
	$(BIN)/python scripts/heads.py

slides: .venv/installed-dev
	$(BIN)/python notebooks/slides.py build/slides.html

fuzz: .venv/installed-dev
	$(PIP_INSTALL) --editable '.[fuzz]'
	@for target in console checksums published index cast user_data evidence tables; do \
	  $(BIN)/python scripts/fuzz.py $$target -max_total_time=600 || exit 1; \
	done

# Run it with the oldest supported Python: the newest versions may need a newer one.
constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --editable '.[dev,docs]' hatchling editables
	sed -n '/^#/p' constraints.txt > constraints.part
	build/constraints/bin/pip freeze --exclude-editable >> constraints.part
	mv constraints.part constraints.txt

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .venv

python-version:
	@$(HOST_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cloudlab needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }

$(HOST): host-%: python-version
	@$(HOST_PYTHON) -m cloudlab.prerequisites $(if $(wildcard $(BIN)/python),,venv) $(NEEDS_$*)

.venv/bin/python: | python-version
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  $(PYTHON) -m cloudlab.prerequisites venv
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) --editable '.[notebook]'
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ .venv/installed

.venv/installed-docs: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@ .venv/installed
