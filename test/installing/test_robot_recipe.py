"""What docs/ros.md, package.xml, requirements.txt and constraints-jazzy.txt say about dependencies agrees."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ros.md").read_text(encoding="utf-8")
# ROS packages that are no messages, and modules that stand in a package of another name.
ROS_MODULES = {"rclpy", "launch", "launch_ros", "salmonn_interfaces"}
# Imported only where a parameter asks for them; configure says what to install.
OPTIONAL = {"vision_msgs"}


def requirements(name: str) -> dict[str, Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in found}


def table() -> dict[str, str]:
    """Requirement -> where it is taken from, by the table of the page."""
    section = PAGE.partition("### Which packages come from where")[2].partition("\n**")[0]
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|$", section, re.MULTILINE)
    return {name: source for names, _, source in rows for name in re.findall(r"`([^`]+)`", names)}


def declared() -> set[str]:
    tree = ET.parse(ROOT / "package.xml")
    return {str(node.text) for node in tree.getroot() if node.tag in ("exec_depend", "depend")}


def test_the_table_names_every_requirement():
    assert set(table()) == set(requirements("requirements.txt"))


def test_package_xml_names_what_comes_from_apt():
    from_apt = {name for name, source in table().items() if source == "apt"}
    keys = {name for name in declared() if name.startswith("python3-")}

    assert keys == {f"python3-{name.lower().replace('pyyaml', 'yaml')}" for name in from_apt} | {"python3-venv"}


def test_package_xml_names_every_ros_package_that_is_imported():
    imported = set()
    for path in [*(ROOT / "salmonn_node").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    ros = {name for name in imported if name.endswith(("_msgs", "_interfaces")) or name in ROS_MODULES}

    assert ros - OPTIONAL <= declared(), f"package.xml lacks {sorted(ros - OPTIONAL - declared())}"


def test_the_constraints_leave_room_for_torch_and_for_symlink_installs():
    limits = requirements("constraints-jazzy.txt")
    wanted = [Requirement(line) for line in importlib.metadata.requires("torch") or []]
    setuptools = next(requirement for requirement in wanted if requirement.name == "setuptools")

    assert "1.26.4" in limits["numpy"].specifier
    assert "79.0.1" in limits["setuptools"].specifier
    assert "80.0.0" not in limits["setuptools"].specifier
    assert "79.0.1" in setuptools.specifier


def test_the_recipe_names_files_that_exist():
    recipe = PAGE.partition("```bash")[2].partition("```")[0]
    named = re.findall(r"src/salmonn_node/([\w./-]+)", recipe)

    torch = set(re.findall(r"torch==([\d.]+)", PAGE))

    assert torch == set(re.findall(r"^TORCH := (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert "requirements.txt" in named
    assert not [name for name in named if not (ROOT / name).exists()]
