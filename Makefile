# Mirage: `make demo` plays, `make test` proves, `make` alone lists the rest.
# Every target may be repeated; the environment is rebuilt only when pyproject.toml changes.

VENV   ?= .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
LOG    := $(VENV)/install.log
EXTRAS := sidecar,game,dev
# Options for the command that a target runs: make demo ARGS="--frames 60", make test ARGS="-x tests/cli"
ARGS   ?=

# The first Python that is new enough. Looked up only while the environment is being made.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)

# Where torch comes from, if not from the index that pip uses: on Linux without a GPU, torch's own index of CPU builds
# saves several GB.
TORCH_INDEX ?=
NEED_GB = $(shell nvidia-smi -L >/dev/null 2>&1 && echo 12 || echo 4)
FREE_GB = $(shell df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }')

say  = printf 'mirage: %s\n'
fail = { printf 'mirage: %s\n' "$(1)" >&2; exit 1; }

# pip into the environment, its output into the log; a failure becomes one sentence.
define pip_install
PIP_DISABLE_PIP_VERSION_CHECK=1 $(PY) -m pip install --no-input $(1) >>$(LOG) 2>&1 || { \
	if grep -q 'No space left on device' $(LOG); then \
		$(call fail,the disk is full: free $(NEED_GB) GB here (and in the temporary directory) and run make again.); \
	elif grep -qE 'NewConnectionError|ConnectTimeout|NameResolutionError|ProxyError|Network is unreachable' $(LOG); then \
		$(call fail,the package index cannot be reached: check the network or PIP_INDEX_URL and run make again (log: $(LOG)).); \
	else grep -E '^ *(ERROR|error)' $(LOG) | tail -n 3 >&2; \
		$(call fail,installing failed; the log is $(LOG).); \
	fi; }
endef

.PHONY: help demo test check lint clean c
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP)  ## play the sample game restyled (headless with pictures in out/demo where there is no display)
	@$(PY) -m mirage_plugin demo $(ARGS)

test: check  ## ruff, mypy (strict) and every test
	@$(say) "pytest"
	@$(PY) -m pytest -q $(ARGS)

check: $(STAMP)  ## ruff and mypy (strict) alone
	@$(say) "ruff"
	@$(PY) -m ruff check .
	@$(say) "mypy --strict"
	@$(PY) -m mypy

lint: check

c:  ## build the C library and its example (bridge/c)
	@missing=; \
	command -v $${CC:-cc} >/dev/null || missing="$$missing build-essential"; \
	command -v cmake >/dev/null || missing="$$missing cmake"; \
	if command -v pkg-config >/dev/null; then \
		pkg-config --exists libzmq || missing="$$missing libzmq3-dev"; \
		pkg-config --exists msgpack-c || pkg-config --exists msgpack || missing="$$missing libmsgpack-dev"; \
	else missing="$$missing pkg-config libzmq3-dev libmsgpack-dev"; fi; \
	test -z "$$missing" || $(call fail,the C library needs: sudo apt-get install$$missing (libmsgpack-dev is called \
	libmsgpack-c-dev on newer systems).)
	@cmake -S bridge/c -B bridge/c/build -DCMAKE_BUILD_TYPE=Release
	@cmake --build bridge/c/build

clean:  ## remove the environment, caches, builds and out/ (training runs in runs/ stay)
	@test ! -f $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	@rm -rf out build dist bridge/c/build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || $(call fail,Python 3.11 or newer is needed and none was found: install it or name one with \
	make PYTHON=/path/to/python3.)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	$(call fail,$(PYTHON) does not run or is older than 3.11: name another with make PYTHON=/path/to/python3.)
	@test -d $(VENV) || test $(FREE_GB) -ge $(NEED_GB) || $(call fail,the environment needs $(NEED_GB) GB of disk and \
	here are $(FREE_GB) GB: free some or name another place with make VENV=/path.)
	@$(PY) -m pip --version >/dev/null 2>&1 || { $(say) "making $(VENV) with $(PYTHON)"; \
	$(PYTHON) -m venv $(VENV) >/dev/null || \
	$(call fail,$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu run sudo apt-get install python3-venv.); }
	@$(say) "installing what pyproject.toml asks for into $(VENV): minutes the first time (log: $(LOG))"
	@: >$(LOG)
	@index="$(TORCH_INDEX)"; $(call pip_install,$${index:+--index-url $$index} "torch>=2.11$(comma)<2.14")
	@$(call pip_install,-e ".[$(EXTRAS)]")
	@touch $@

comma := ,
