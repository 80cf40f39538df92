# make reproduce [CONFIG=config/X.yaml] [SET="key=value …"]   the experiment; installs what it needs first
# make fetch [CONFIG=… SET="…"]                               what it needs from the hub, for machines without network
# make plan [CONFIG=… SET="…"]                                what that would cost, before it runs
# make report [CONFIG=… SET="…"]                              the page of a grid that is still running or has failed
# make test                                                   the test suite
# make proofs; make oldest                                    proofs too long for it; the suite on the oldest libraries
# make bench [BENCH="--repeats 5 …"]                          what a training step costs; python benchmarks/step.py --help
# PYTHON=/path/to/python  uses that interpreter and installs nothing
# TORCH_INDEX=https://download.pytorch.org/whl/cpu  takes torch from there (a small CPU build)
CONFIG ?= config/config.yaml
SET ?=
BASE_PYTHON ?= python3
TORCH_INDEX ?=

ifdef PYTHON
RUN := $(PYTHON)
SETUP :=
else
RUN := $(CURDIR)/.venv/bin/python
SETUP := .venv/.installed
endif

INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# held by the running snakemake and released by its death, so that a killed run never has to be unlocked by hand
LOCK := $(if $(shell command -v flock),flock --nonblock --conflict-exit-code 75 results/.lock)

.PHONY: reproduce report fetch plan test proofs oldest bench
.DELETE_ON_ERROR:

reproduce: $(SETUP)
	@$(LOCK) $(RUN) -m snakemake --cores all --quiet host reason --configfile $(CONFIG) $(if $(LOCK),--nolock) $(if $(SET),--config $(SET)); \
	status=$$?; if [ $$status = 75 ]; then echo "another 'make reproduce' is running in this folder" >&2; fi; exit $$status

# what needs network, on the machine that has it; everything else then runs without
fetch: $(SETUP)
	@$(RUN) -m snakemake --cores 1 --configfile $(CONFIG) $(if $(SET),--config $(SET)) --until fetch_model fetch_rows fetch_benchmarks

report: $(SETUP)
	@$(RUN) -m sstoken.report.partial $(CONFIG) $(SET)

plan: $(SETUP)
	@$(RUN) -m sstoken.experiment.plan $(CONFIG) $(SET)

test: $(SETUP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m snakefmt --check Snakefile workflow/rules
	$(RUN) -m pytest

# longer than the suite may take
proofs: $(SETUP)
	$(RUN) -m pytest -m slow

bench: $(SETUP)
	$(RUN) benchmarks/step.py --all $(BENCH)

# the suite on the oldest libraries that this runs with
oldest: .oldest/.installed
	.oldest/bin/python -m pytest

.oldest/.installed: requirements.lock requirements-oldest.txt
	$(BASE_PYTHON) -m venv .oldest
	sed -n 's/==.*/==/p' requirements-oldest.txt | grep -ivFf - requirements.lock >.oldest/others.txt
	.oldest/bin/python -m pip install --quiet --no-deps -r .oldest/others.txt
	.oldest/bin/python -m pip install --quiet $(INDEX) -r requirements-oldest.txt
	@touch $@

.venv/.installed: requirements.lock
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, not " + sys.version.split()[0])'
	$(BASE_PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-deps $(INDEX) -r requirements.lock
	# what this platform's build of torch needs beside: of CUDA a dozen packages, which torch pins; of a CPU's nothing
	.venv/bin/python -m pip install --quiet $(INDEX) --constraint requirements.lock "$$(grep '^torch==' requirements.lock)"
	@touch $@
