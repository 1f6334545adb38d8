"""What a release needs: one version, a licence for each dependency, no large files, no secrets."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
# Larger than a MiB, and why it is in the repository.
LARGE = {
    "salmonn_node/checkpoints/tiny/model.safetensors": "the network that ships",
    "salmonn_node/live/demo_data/bag/bag.mcap": "the demo's recording",
    "test/data/golden/e2e_weights_inputs.safetensors": "inputs of the public release's vectors",
}
SECRETS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bhf_[A-Za-z0-9]{34}\b"
    rb"|\bsk-[A-Za-z0-9_-]{40,}|\bxox[abp]-[A-Za-z0-9-]{20,}|\bnvapi-[A-Za-z0-9_-]{40,}"
)


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py gives to setuptools."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: found.update(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    return found


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    return [name for name in listed.stdout.decode().split("\0") if name]


def test_every_dependency_stands_in_the_page_of_licences(setup_arguments: dict[str, Any]):
    lines = setup_arguments["install_requires"] + sum(setup_arguments["extras_require"].values(), [])
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| (\S.*?) \| (\S.*?) \|$", page, re.MULTILINE)
    listed = {name for names, _, _ in rows for name in re.findall(r"`([^`]+)`", names)}

    assert {Requirement(line).name for line in lines} <= listed


def test_the_version_is_the_same_everywhere(setup_arguments: dict[str, Any]):
    packages = [ROOT / "package.xml", ROOT / "salmonn_interfaces/package.xml"]
    versions = {ET.parse(path).getroot().findtext("version") for path in packages}
    interfaces = tomllib.loads((ROOT / "salmonn_interfaces/pyproject.toml").read_text(encoding="utf-8"))

    assert versions | {interfaces["project"]["version"]} == {setup_arguments["version"]}


def test_the_changelog_has_the_form_that_a_release_needs():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


def test_no_tracked_file_is_large_without_a_reason():
    sizes = {name: (ROOT / name).stat().st_size for name in tracked() if (ROOT / name).is_file()}
    large = {name for name, size in sizes.items() if size > MIB}

    assert large == set(LARGE)
    assert sum(sizes.values()) < 32 * MIB


def test_no_tracked_file_holds_a_secret():
    found = [name for name in tracked() if (ROOT / name).is_file() and SECRETS.search((ROOT / name).read_bytes())]

    assert not found
