"""Launch files run as on a robot: a prefix laid out as colcon does, and the sources of launch and launch_ros."""

from __future__ import annotations

import os

# Before any rclpy.init: these nodes must not meet those of another run.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node, NodeNameNonExistentError

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PATIENCE_S = 240.0
ACTIVE, INACTIVE = State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_INACTIVE
UNCONFIGURED = State.PRIMARY_STATE_UNCONFIGURED


def sources() -> list[Path]:
    """Folders that hold the Python packages; `make test-launch` fetches them and names them."""
    named = os.environ.get("LAUNCH_SOURCES", str(ROOT / ".venv" / "launch_sources"))
    folders = [Path(named) / part for part in ("launch/launch", "launch_ros/launch_ros", "osrf_pycommon")]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        pytest.fail(f"no sources of launch: {', '.join(missing)}; run this through `make test-launch`")
    return folders


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What colcon installs, as links: the marker in the index, share/ and lib/salmonn_node/."""
    prefix = tmp_path_factory.mktemp("install")
    for folder in ("share/ament_index/resource_index/packages", "share/salmonn_node", "lib/salmonn_node"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "share/ament_index/resource_index/packages/salmonn_node").touch()
    for folder in ("launch", "config"):
        (prefix / "share/salmonn_node" / folder).symlink_to(ROOT / folder)
    for script in ("salmonn", "memory_node"):
        (prefix / "lib/salmonn_node" / script).symlink_to(Path(sys.executable).parent / script)
    return prefix


class Launched:
    """One `ros2 launch`, and what a robot's other processes see of the node that it started."""

    def __init__(
        self, prefix: Path, log: Path, graph: Node, file: str, *arguments: str, name: str = "/salmonn"
    ) -> None:
        self.log, self.name, self._graph = log, name, graph
        path = [*sources(), HERE / "stubs", ROOT]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "AMENT_PREFIX_PATH": os.pathsep.join(map(str, (prefix, sys.prefix))),
            "ROS_LOG_DIR": str(log.parent),
            "HOME": str(log.parent),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(HERE / "launch_file.py"), str(ROOT / "launch" / file), *arguments]
        with log.open("wb") as out:
            # Away from the checkout, whose folder launch/ would stand for the package of that name.
            self._process = subprocess.Popen(
                command, cwd=log.parent, stdout=out, stderr=subprocess.STDOUT, env=environment
            )

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """Call a service of the node once it is there."""
        client = self._graph.create_client(kind, f"{self.name}/{service}")
        try:
            self.wait(client.service_is_ready, f"the service {service}")
            future = client.call_async(request)
            self.wait(future.done, f"a reply of {service}")
            return future.result()
        finally:
            self._graph.destroy_client(client)

    def state(self) -> int:
        return int(self.call(GetState, "get_state", GetState.Request()).current_state.id)

    def become(self, state: int) -> None:
        self.wait(lambda: self.state() == state, f"state {state}")

    def change(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return bool(self.call(ChangeState, "change_state", request).success)

    def parameters(self, *names: str) -> list[Any]:
        values = self.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
        return [rclpy.parameter.parameter_value_to_python(value) for value in values]

    def hears(self, topics: dict[str, str]) -> None:
        """Wait until the node subscribes to these topics, each with its type."""
        space, _, name = self.name.rpartition("/")

        def found() -> bool:
            try:
                pairs = self._graph.get_subscriber_names_and_types_by_node(name, space or "/")
            except NodeNameNonExistentError:  # not discovered yet
                return False
            return topics.items() <= {topic: types[0] for topic, types in pairs}.items()

        self.wait(found, f"subscriptions to {topics}")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}\n{self.said()}"
            assert self._process.poll() is None, f"launch ended before {what}\n{self.said()}"
            rclpy.spin_once(self._graph, timeout_sec=0.05)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def result(self) -> int:
        """Exit status of launch, when it ends by itself."""
        return self._process.wait(PATIENCE_S)

    def end(self) -> int:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self._process.wait(PATIENCE_S)


@pytest.fixture
def launch(prefix: Path, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Run a launch file; whatever still runs at the end of the test is interrupted, as with Ctrl-C."""
    rclpy.init()
    graph, started = rclpy.create_node("robot"), []

    def start(file: str, *arguments: str, name: str = "/salmonn") -> Launched:
        log = tmp_path / f"launch{len(started)}.log"
        started.append(Launched(prefix, log, graph, file, *arguments, name=name))
        return started[-1]

    yield start
    for one in started:
        one.end()
    graph.destroy_node()
    rclpy.shutdown()
