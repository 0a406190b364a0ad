# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test locked lock audit server server-stop clean

train: .venv/installed
	$(BIN)/python train.py $(ARGS)

test: .venv/installed-dev
	$(BIN)/python -m pytest $(ARGS)

# An environment knows where it was made. In a project that was copied or moved it would run the other one's code, or none.
made_in := $(shell cat .venv/installed 2>/dev/null)
ifneq ($(made_in),$(CURDIR))
.PHONY: .venv/installed
anew := $(if $(made_in),--clear)
endif

.venv/installed: pyproject.toml $(wildcard src/tbptt/models/native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tbptt needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(anew) .venv
	$(BIN)/python -m pip install --quiet --editable .
	@echo '$(CURDIR)' > $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[cluster,export,figures,dev]'
	@touch $@

# What CI installs: the packages of requirements.lock and no others, each file held against its hash.
locked:
	$(PYTHON) -m venv .venv
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
	  | grep '^torch' | $(BIN)/python -m pip install --quiet -r /dev/stdin
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python -m pip check
	@echo '$(CURDIR)' > .venv/installed
	@touch .venv/installed-cluster .venv/installed-dev

# Write requirements.lock anew.
lock: .tools/installed
	.tools/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
	  --no-emit-find-links --extra cluster --extra export --extra figures --extra dev --output-file .tools/all.lock pyproject.toml
	(sed -n '/^#/p;/^[^#]/q' requirements.lock; \
	  awk '/^[a-z0-9]/ {keep = !/^torch==/} /^#/ {next} keep' .tools/all.lock) > .tools/new.lock
	mv .tools/new.lock requirements.lock

# Known weaknesses of what is locked, and of torch; fails where it could not look.
audit: .tools/installed .venv/installed
	.tools/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock
	$(BIN)/python -c 'import torch; print("torch==" + torch.__version__.split("+")[0])' > .tools/torch.txt
	.tools/bin/pip-audit --strict --disable-pip --no-deps -r .tools/torch.txt

.tools/installed:
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet pip-tools pip-audit
	@touch $@

# PostgreSQL and an MLflow server on this machine's loopback, to try out cluster=server; see docs/scaling.md.
server: .venv/installed-cluster
	$(BIN)/python -m tbptt.cli.servers start

server-stop:
	$(BIN)/python -m tbptt.cli.servers stop

.venv/installed-cluster: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[cluster]'
	@touch $@

clean:
	rm -rf .venv .tools build .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
