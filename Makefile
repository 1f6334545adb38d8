# Two commands: `make demo` and `make test`. Both do all the set-up on a bare Debian or Ubuntu with Python 3.11 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.ready-test
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# A folder with wheels that you have already, for example the CPU build of torch: make WHEELS=~/wheels demo
WHEELS ?=
# Byte code is compiled at first import: a third of the time of setting up torch goes into files that are never used.
# -qq: pip prints errors only. Its warnings are about its own retries and caches.
PIP := $(BIN)/python -m pip install -qq --no-compile $(if $(WHEELS),--find-links $(WHEELS))
# ROS 2 is built as wheels for x86-64 alone; elsewhere set-up leaves it out and the demo replays its bag offline.
ROS_WHEELS ?= $(if $(filter x86_64,$(shell uname -m)),yes,no)
INTERFACES := $(wildcard salmonn_interfaces/*.txt salmonn_interfaces/*.toml salmonn_interfaces/cmake/* salmonn_interfaces/*/*.msg salmonn_interfaces/*/*.srv salmonn_interfaces/*/*.action tf2_msgs/*.t* tf2_msgs/msg/*)
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_USE_PEP517 := 1

.PHONY: setup demo test test-full test-gpu test-launch test-other-python lint golden mutation soak licences sbom clean

setup: $(READY)

# A CUDA build of torch is several GB, so a machine without a GPU gets the CPU build, and is told so. A CPU build in a
# folder that pip looks into (WHEELS, PIP_FIND_LINKS) is taken first; then PyTorch's own index; then PyPI's CUDA build.
$(READY): setup.py requirements.txt $(INTERFACES)
	@if [ -n "$$ROS_DISTRO" ]; then echo "A ROS installation is sourced in this shell; the wheels need a shell without it."; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
		{ echo "This project needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there)."; \
		echo "Install one of them and name it, for example: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "Setting up $(VENV): about 2 GB, a few minutes, this once."; $(PYTHON) -m venv $(VENV); }
	@if nvidia-smi >/dev/null 2>&1; then \
		echo "GPU found: installing the CUDA build of torch $(TORCH)"; \
		$(PIP) "torch==$(TORCH)"; \
	else \
		echo "No GPU found: installing the CPU build of torch $(TORCH)"; \
		$(PIP) --no-deps "torch==$(TORCH)+cpu" 2>/dev/null || \
		$(PIP) --retries 1 --timeout 15 --no-deps --index-url $(TORCH_CPU_INDEX) "torch==$(TORCH)+cpu" 2>/dev/null || \
		{ echo "$(TORCH_CPU_INDEX) cannot be reached or has no such build for $$($(BIN)/python --version)."; \
		echo "Installing PyPI's build of torch $(TORCH) instead: it runs on the CPU as well, but brings CUDA's libraries: 5 GB on disk instead of 2."; \
		echo "If you have a CPU wheel of torch $(TORCH), stop here and name its folder: make WHEELS=FOLDER $(MAKECMDGOALS)"; \
		$(PIP) "torch==$(TORCH)"; }; \
	fi
ifeq ($(ROS_WHEELS),yes)
	@echo "Building the ROS interfaces"
	@$(PIP) ./salmonn_interfaces ./tf2_msgs
	@echo "Installing the node with ROS 2 Jazzy"
	@$(PIP) -e '.[ros,ui]'
else
	@echo "There are no ROS 2 wheels for $$(uname -m): installing without ROS. Replay, ask --bag, plan, doctor and engines work."
	@echo "The node itself needs ROS 2 Jazzy and colcon here: docs/ros.md."
	@$(PIP) -e '.[ui,report]'
endif
	@touch $@

$(TEST_READY): $(READY)
	@[ "$(ROS_WHEELS)" = yes ] || { echo "The tests need ROS 2, and there are no wheels of it for $$(uname -m)."; exit 1; }
	@echo "Installing what the tests need"
	@$(PIP) -e '.[ros,ui,test,report,rtx,video]'
	@touch $@

demo: $(READY)
	@$(BIN)/salmonn demo$(if $(filter no,$(ROS_WHEELS)), --offline)

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not full"

# The full tests also render the world, off screen and in software. Those of the page have a process of their own, as
# their robot and that of the ROS tests would meet in one graph.
test-full: lint
	@ldconfig -p | grep -q libOSMesa || { echo "Rendering needs OSMesa: apt-get install libosmesa6"; exit 1; }
	@$(PIP) -e '.[ros,ui,test,report,rtx,video,world,ray]' datasets
	$(BIN)/python -m pytest -m "not launch and not gpu" --timeout 3600 --ignore test/ui
	$(BIN)/python -m pytest -m "not launch and not gpu" --timeout 3600 test/ui
	@$(MAKE) --no-print-directory test-launch || { echo "The tests passed, but the launch files were not tested."; exit 1; }

# The launch files under the Jazzy sources of launch and launch_ros, which no package index has. Clones that you have
# already: make LAUNCH_SOURCES=FOLDER test-launch, with launch/, launch_ros/ and osrf_pycommon/ in it.
LAUNCH_SOURCES ?= $(abspath $(VENV))/launch_sources
test-launch: $(TEST_READY)
	@clone() { test -d "$(LAUNCH_SOURCES)/$$2" || git clone -q --depth 1 -c advice.detachedHead=false --branch $$3 \
		https://github.com/$$1/$$2 "$(LAUNCH_SOURCES)/$$2"; }; \
	clone ros2 launch 3.4.3 && clone ros2 launch_ros 0.26.6 && clone osrf osrf_pycommon 2.1.6 || \
		{ echo "GitHub cannot be reached. Name a folder with clones: make LAUNCH_SOURCES=FOLDER test-launch"; exit 1; }
	LAUNCH_SOURCES=$(LAUNCH_SOURCES) $(BIN)/python -m pytest -m launch test/launching --timeout 900

# On a machine with a GPU that torch can use.
test-gpu: $(TEST_READY)
	$(BIN)/python -m pytest -m gpu test/gpu

# Another interpreter, for example: make test-other-python PYTHON=python3.13. It tests the rooms that need neither torch
# nor ROS, in an environment of its own (200 MB). `make PYTHON=python3.13 VENV=.venv-3.13 test` tests everything.
OTHER := .venv-other/$(notdir $(PYTHON))
test-other-python:
	@$(PYTHON) -m venv --clear $(OTHER)
	@$(OTHER)/bin/python -m pip install -qq --no-compile numpy soxr 'pydantic>=2' opencv-python-headless 'rosbags>=0.11,<0.12' \
		rich PyYAML scikit-image pytest pytest-timeout hypothesis
	PYTHONPATH=. $(OTHER)/bin/python -m pytest -k "not rclpy" test/stream test/messages test/evaluation/test_answer_file.py \
		test/evaluation/test_importers.py test/evaluation/test_scores.py test/replay/test_bag.py \
		test/replay/test_bag_stream.py test/storage/test_evidence.py test/answering/test_ground_ray.py test/test_rooms.py

golden: $(READY)
	$(BIN)/salmonn golden $(GOLDEN)

# Mutation tests: hours of CPU time. MUTANTS='salmonn_node.stream.session*' tries a part; what was tried is kept.
MUTANTS ?=
mutation: $(TEST_READY)
	@$(PIP) mutmut==3.8.1
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 1 $(MUTANTS)
	@$(BIN)/python bench/mutation_table.py

# An hour of kills, full disks and nonsense; MINUTES=5 for a short one.
MINUTES ?= 60
soak: $(READY)
	$(BIN)/salmonn bench soak --minutes $(MINUTES)

# What is installed in this environment, with licences; docs/licences.md explains them.
licences: $(READY)
	@$(PIP) pip-licenses==5.5.5
	@$(BIN)/pip-licenses --format=markdown

# A software bill of materials of this environment, CycloneDX as JSON.
sbom: $(READY)
	@$(PIP) cyclonedx-bom==7.5.0
	@$(BIN)/cyclonedx-py environment --output-reproducible --of JSON -o sbom.json $(BIN)/python
	@echo "sbom.json: $$(grep -c '"bom-ref"' sbom.json) entries"

clean:
	rm -rf $(VENV) .venv-other build install log demo_output dist sbom.json *.egg-info
