# Two commands: `make demo` and `make test`. Both do all the set-up on a bare Debian or Ubuntu with Python 3.10 to 3.12.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST

.PHONY: setup demo test test-full lint golden clean

setup: $(SETUP)

# A CUDA build of torch is several GB, so a machine without a GPU gets the CPU build, and is told so.
$(SETUP): setup.py salmonn_interfaces/pyproject.toml $(wildcard salmonn_interfaces/*/*.msg salmonn_interfaces/*/*.srv salmonn_interfaces/*/*.action)
	@if [ -n "$$ROS_DISTRO" ]; then echo "A ROS installation is sourced in this shell; the wheels need a shell without it."; exit 1; fi
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if nvidia-smi >/dev/null 2>&1; then \
		echo "GPU found: installing the CUDA build of torch $(TORCH)"; \
		$(BIN)/pip install -q "torch==$(TORCH)"; \
	else \
		echo "No GPU found: installing the CPU build of torch $(TORCH)"; \
		$(BIN)/pip install -q --retries 1 --no-deps --extra-index-url $(TORCH_CPU_INDEX) "torch==$(TORCH)+cpu"; \
	fi
	$(BIN)/pip install -q ./salmonn_interfaces
	$(BIN)/pip install -q -e '.[ros,test,report,rtx]'
	touch $@

demo: setup
	$(BIN)/salmonn demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not full"

test-full: lint
	$(BIN)/python -m pytest -m "full or not full" --timeout 3600

golden: setup
	$(BIN)/salmonn golden $(GOLDEN)

clean:
	rm -rf $(VENV) build install log demo_output *.egg-info
