# Everything is set up by the targets themselves; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
# The versions that were tested, also of what builds this package: older pips take those from the
# first variable, newer ones from the second.
PIP_INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  $(BIN)/pip install --quiet
RECORDED := cloudlab/recordings
ARTICLE := default growpart-off resize-rootfs-false

.PHONY: help demo lab test check bench figures gallery recordings slides fuzz constraints clean
.DELETE_ON_ERROR:

help:
	@echo "make demo   boot the article's three scenarios; results in build/demo/"
	@echo "make lab    open JupyterLab on the course"
	@echo "make test   every check and every test"
	@echo "make check  formatting, lint, types, import directions"
	@echo "make bench  time and memory, side by side"
	@echo "make figures     draw the README's figures from the shipped recordings"
	@echo "make gallery     boot every case of the gallery afresh and compare"
	@echo "make recordings  the same, and replace the shipped recordings"
	@echo "make slides      printable slides out of the notebooks, in build/slides.html"
	@echo "make fuzz        ten minutes of coverage-guided fuzzing for each parser"
	@echo "make constraints write constraints.txt anew, with the newest versions"
	@echo "make clean  remove what was built here (the image cache stays)"

demo: .venv/installed
	@$(BIN)/python -m cloudlab.prerequisites run build
	@if [ -e build/demo ]; then rm -rf build/demo.old && mv build/demo build/demo.old; fi
	$(BIN)/cloudlab demo --output build/demo

lab: .venv/installed
	@$(BIN)/python -m cloudlab.prerequisites run
	$(BIN)/cloudlab lab

test: .venv/installed-dev check
	@$(BIN)/python -m cloudlab.prerequisites run build test
	$(BIN)/pytest -n 2 --dist loadgroup

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-dev
	@$(BIN)/python -m cloudlab.prerequisites run build test
	$(BIN)/python tests/bench.py

figures: .venv/installed
	@mkdir -p docs
	$(BIN)/cloudlab figure $(RECORDED)/default --kind disk-map --output docs/disk-map.svg
	$(BIN)/cloudlab figure $(RECORDED)/as-in-a-cloud --kind timeline --output docs/timeline.svg
	$(BIN)/cloudlab figure $(ARTICLE:%=$(RECORDED)/%) --kind scenarios --output docs/scenarios.svg

gallery: .venv/installed
	@$(BIN)/python -m cloudlab.prerequisites run build
	@rm -rf build/gallery
	$(BIN)/python -m cloudlab.lab.gallery --output build/gallery

recordings: .venv/installed-dev
	@$(BIN)/python -m cloudlab.prerequisites run build
	@rm -rf build/gallery
	$(BIN)/python -m cloudlab.lab.gallery --output build/gallery --record
	$(BIN)/python tests/heads.py

slides: .venv/installed-dev
	$(BIN)/python notebooks/slides.py build/slides.html

fuzz: .venv/installed-dev
	$(PIP_INSTALL) --editable '.[fuzz]'
	@for target in console checksums published index cast user_data tables; do \
	  $(BIN)/python tests/fuzz.py $$target -max_total_time=600 || exit 1; \
	done

# With the oldest Python that is supported, because the newest versions may need a newer one.
constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --editable '.[dev]' hatchling editables
	sed -n '/^#/p' constraints.txt > constraints.part
	build/constraints/bin/pip freeze --exclude-editable >> constraints.part
	mv constraints.part constraints.txt

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cloudlab needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  $(PYTHON) -m cloudlab.prerequisites venv
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) --editable '.[notebook]'
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ .venv/installed
