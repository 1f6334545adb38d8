"""The container files pass their linter and stay in step with the Makefile, the launch files and the set-up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("docker/Dockerfile", "docker/Dockerfile.l4t", ".devcontainer/Dockerfile")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def steps(name: str) -> list[str]:
    """Instructions of a Dockerfile, continued lines joined, without comments."""
    lines = [line for line in read(name).splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [step.strip() for step in re.split(r"\n(?!\s)", joined) if step.strip()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_linter_finds_nothing(name: str):
    linter = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([linter, ROOT / name], capture_output=True, text=True, timeout=120, check=False)

    assert found.returncode == 0, found.stdout + found.stderr


def test_the_image_has_the_torch_of_the_makefile():
    in_makefile = re.search(r"^TORCH := (\S+)", read("Makefile"), re.MULTILINE)
    in_dockerfile = re.search(r"^ARG TORCH_VERSION=(\S+)", read("docker/Dockerfile"), re.MULTILINE)

    assert in_makefile
    assert in_dockerfile
    assert in_makefile[1] == in_dockerfile[1]


def test_the_images_have_the_page_that_setup_py_names():
    named = re.search(r'^UI = "(.+)"', read("setup.py"), re.MULTILINE)

    assert named
    for name in DOCKERFILES[:2]:
        assert f'ARG UI="{named[1]}"' in steps(name)


def test_both_images_differ_in_torch_alone():
    first, second = steps("docker/Dockerfile"), steps("docker/Dockerfile.l4t")
    different = set(first) ^ set(second)

    assert all(
        "$TORCH" in step or step.startswith("ARG TORCH") or step.startswith("ENV NVIDIA") for step in different
    ), different


@pytest.mark.parametrize("name", DOCKERFILES[:2])
def test_what_is_copied_and_called_exists(name: str):
    copied = [word for step in steps(name) if step.startswith("COPY") for word in step.split()[1:-1]]

    assert "requirements.txt" in copied
    assert not [path for path in copied if not (ROOT / path).exists()]
    assert (ROOT / "docker/entrypoint.sh").stat().st_mode & 0o111


def test_compose_builds_what_is_there_and_launches_with_arguments_that_exist():
    services = yaml.safe_load(read("compose.yaml"))["services"]
    launch = read("launch/salmonn.launch.py")
    arguments = re.findall(r"(\w+):=", services["node"]["command"])

    assert set(services) == {"camera", "node", "page"}
    assert arguments
    for argument in arguments:
        assert f'"{argument}": ' in launch, argument
    for service in services.values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_development_container_has_what_the_readme_asks_for():
    asked = re.search(r"with `(git [^`]+)`", read("README.md"))
    container = json.loads(read(".devcontainer/devcontainer.json"))
    dockerfile = read(f".devcontainer/{container['build']['dockerfile']}")

    assert asked
    assert not [package for package in asked[1].split() if not re.search(rf"\s{re.escape(package)}\s", dockerfile)]
    assert container["postCreateCommand"] == "make setup"
