"""The node's parameters: one table of names, defaults, ranges and descriptions. Configure reads and checks them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from salmonn_node.answering.server_settings import ServerSettings
from salmonn_node.messages import MessageError
from salmonn_node.messages.base import frame_name
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.runtime.settings import Settings
from salmonn_node.stream.stamp_offset import MAX_OFFSET_S, POSE_SOURCE

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
MEMORY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# image_transport -> topic of a camera. For "video", the publisher's type says which format it is.
IMAGE_TOPICS = {"raw": "image", "compressed": "image/compressed", "video": "image/video"}
SOUND_TYPES = (
    "auto",
    "salmonn_interfaces/msg/AudioChunk",
    "audio_common_msgs/msg/AudioStamped",
    "audio_common_msgs/msg/AudioDataStamped",
)


@dataclass(frozen=True)
class _Entry:
    """One parameter: default, description, closed range or choices, and whether it may change while the node runs."""

    default: Any
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False


def _network_entry(entry: dataclasses.Field[Any]) -> _Entry:
    """The parameter of a setting of the network or of a server."""
    limits = entry.metadata
    low, high = (limits["low"], limits["high"]) if limits["high"] else (None, None)
    return _Entry(entry.default, limits["text"], low, high, limits["choices"])


ENTRIES: dict[str, _Entry] = {
    **{entry.name: _network_entry(entry) for entry in dataclasses.fields(NetworkSettings)},
    **{entry.name: _network_entry(entry) for entry in dataclasses.fields(ServerSettings)},
    "threads": _Entry(Settings.threads, "CPU threads of the network; 0: torch chooses.", 0, 256),
    "engine_backend": _Entry(
        Settings.engine_backend,
        "What runs the encoders; auto: a built TensorRT engine if one fits, otherwise torch.",
        choices=("auto", "torch", "tensorrt", "tensorrt_rtx"),
    ),
    "require_engine": _Entry(Settings.require_engine, "Let configure fail if an encoder cannot run on an engine."),
    "engine_directory": _Entry("", "Directory of built engines; empty: where `salmonn engines build` puts them."),
    "memory_directory": _Entry("", "Directory of memories; empty: $XDG_DATA_HOME/salmonn_node/memories."),
    "memory_name": _Entry(Settings.memory_name, "Name of the running memory: letters, digits, '-', '_'."),
    "persistence": _Entry(
        Settings.persistence,
        "Keep the memory on disk: restore it in configure, write journal and snapshots while active.",
    ),
    "snapshot_period_s": _Entry(Settings.snapshot_period_s, "Seconds between snapshots.", 1.0, 86400.0),
    "snapshots_kept": _Entry(
        Settings.snapshots_kept, "Snapshots to keep on disk, each with the journal that follows it.", 1, 100
    ),
    "memory_disk_gib": _Entry(
        Settings.memory_disk_gib,
        "Bound on disk use in GiB: the oldest evidence is deleted first, then old snapshots.",
        0.01,
        1e4,
    ),
    "sessions_kept": _Entry(
        Settings.sessions_kept,
        "Earlier sessions to keep on disk, each as memory NAME-session-NUMBER; a clock reset ends a session.",
        0,
        1000,
    ),
    "evidence_ram_mib": _Entry(
        Settings.evidence_ram_mib,
        "MiB of RAM for evidence (pictures, moments, poses) without persistence; the oldest is discarded first.",
        4,
        65536,
    ),
    "clock_jump_tolerance_s": _Entry(
        1.0, "A backward jump of the ROS clock of this many seconds or more starts a new session.", 0.0, 60.0
    ),
    "cameras": _Entry(
        ["camera"], "Names of cameras. Topics: <name>/image, <name>/image/compressed or <name>/image/video."
    ),
    "microphones": _Entry(["microphone"], "Names of microphones; each gives the topic <name>/audio."),
    "image_transport": _Entry("raw", "Which topic of each camera to subscribe to.", choices=tuple(IMAGE_TOPICS)),
    "image_reliability": _Entry("best_effort", "QoS of images.", choices=("best_effort", "reliable")),
    "image_depth": _Entry(5, "QoS history depth of images.", 1, 100),
    "image_rate_hz": _Entry(0.0, "True frame rate of the cameras, to find missing images; 0: unknown.", 0.0, 1000.0),
    "audio_type": _Entry(
        "auto", "Message type of sound; auto: the type of the topic's publisher.", choices=SOUND_TYPES
    ),
    "audio_reliability": _Entry("reliable", "QoS of sound.", choices=("best_effort", "reliable")),
    "audio_depth": _Entry(100, "QoS history depth of sound; 100 chunks of 20 ms are 2 s.", 50, 1000),
    "pose_type": _Entry(
        "odometry",
        "Message type of topic `pose`; tf: the pose of base_frame in pose_frame is taken from /tf.",
        choices=("none", "odometry", "pose", "pose_with_covariance", "tf"),
    ),
    "pose_frame": _Entry("map", "Frame of the robot's poses with pose_type tf."),
    "pose_reliability": _Entry("best_effort", "QoS of poses.", choices=("best_effort", "reliable")),
    "pose_depth": _Entry(50, "QoS history depth of poses.", 1, 1000),
    "map_id": _Entry("", "Name of the map that poses refer to; it is copied to each pose, evidence and answer."),
    "base_frame": _Entry(Settings.base_frame, "Frame of the robot; topic `pose` gives the pose of this frame."),
    "listen_to_tf": _Entry(True, "Subscribe to /tf and /tf_static, for poses in other frames and for camera mounts."),
    "ground_z_m": _Entry(
        Settings.ground_z_m, "Height in metres of the plane that objects stand on, in the frame of `pose`.", -1e4, 1e4
    ),
    "max_object_range_m": _Entry(
        Settings.max_object_range_m, "Objects further from the camera than this many metres get no position.", 0.1, 1e3
    ),
    "frame_rate_hz": _Entry(
        Settings.frame_rate_hz, "Images taken per second and camera. The network was made for 1.", 0.1, 10.0
    ),
    "default_timeout_s": _Entry(5.0, "Deadline in seconds for a question that sets none.", 0.05, 600.0, dynamic=True),
    "max_timeout_s": _Entry(
        120.0, "Longest deadline in seconds; a longer one is cut to this.", 0.05, 3600.0, dynamic=True
    ),
    "max_questions": _Entry(128, "Most open questions; further ones get BUSY.", 1, 1024),
    "watch_period_s": _Entry(
        1.0, "Seconds between evaluations of a watch that sets no period.", 0.1, 3600.0, dynamic=True
    ),
    "max_evidence": _Entry(
        Settings.max_evidence, "Most pieces of evidence for a question that sets no number.", 1, 100, dynamic=True
    ),
    "service_introspection": _Entry(
        "metadata",
        "Trace of calls on ~/query/_service_event: off, metadata (who and when), contents (question and answer, too).",
        choices=("off", "metadata", "contents"),
    ),
    "publish_detections": _Entry(
        False, "Also publish the regions of evidence as vision_msgs/Detection2DArray on ~/evidence_detections."
    ),
    "diagnostics_period_s": _Entry(1.0, "Seconds between diagnostics.", 0.1, 60.0),
}


@dataclass(frozen=True)
class NodeParameters:
    """The checked parameter values of the node.

    Attributes:
        values: the parameters of ENTRIES by name; each is also an attribute.
        transports: "raw", "compressed" or "video" by camera.
        runtime: the settings of network, memory, answers and disk.
        stamp_offsets: seconds to add to the stamps of a source, by its name.
    """

    values: dict[str, Any]
    transports: dict[str, str]
    runtime: Settings
    stamp_offsets: dict[str, float] = dataclasses.field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


def declare(node: Node) -> list[str]:
    """Declare all parameters with descriptors. Those that are not dynamic are read-only.

    Returns:
        Problems with given values, one text each. The parameter then has its default, and configure must fail.
    """
    problems: list[str] = []

    def declare_one(name: str, default: Any, descriptor: ParameterDescriptor) -> None:
        try:
            node.declare_parameter(name, default, descriptor)
        except (InvalidParameterValueException, InvalidParameterTypeException) as error:
            problems.append(f"{name}: {error}")
            node.declare_parameter(name, default, descriptor, ignore_override=True)

    for name, entry in ENTRIES.items():
        declare_one(name, entry.default, _descriptor(entry))
    for camera in node.get_parameter("cameras").value or []:
        if NAME.fullmatch(camera) and not node.has_parameter(f"{camera}.mount"):
            text = "Pose of the camera's optical frame in base_frame: x y z roll pitch yaw (m, rad); empty: from tf."
            descriptor = ParameterDescriptor(description=text, read_only=True)
            declare_one(f"{camera}.mount", Parameter.Type.DOUBLE_ARRAY, descriptor)
            text = "Image transport of this camera; empty: as image_transport."
            declare_one(f"{camera}.image_transport", "", ParameterDescriptor(description=text, read_only=True))
    named = [*(node.get_parameter("cameras").value or []), *(node.get_parameter("microphones").value or [])]
    for source in [*dict.fromkeys(named), POSE_SOURCE]:
        if NAME.fullmatch(source):
            text = "Seconds added to each stamp of this source, to correct a clock that is off by a steady offset."
            reach = [FloatingPointRange(from_value=-MAX_OFFSET_S, to_value=MAX_OFFSET_S)]
            descriptor = ParameterDescriptor(description=text, read_only=True, floating_point_range=reach)
            declare_one(f"{source}.stamp_offset_s", 0.0, descriptor)
    node.add_on_set_parameters_callback(_refuse_bad)
    return problems


def read(node: Node) -> NodeParameters:
    """Read and check all parameters. Raises ValueError naming the parameter and its valid values."""
    values = {name: node.get_parameter(name).value for name in ENTRIES}
    for name, entry in ENTRIES.items():
        _check(name, entry, values[name])
    # rclpy gives None for an empty list from a params file.
    values["cameras"] = [c for c in values["cameras"] or [] if c]
    values["microphones"] = [m for m in values["microphones"] or [] if m]
    names = values["cameras"] + values["microphones"]
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"cameras and microphones need names of letters, digits and '_', got {name!r}")
    if len(set(names)) != len(names) or "pose" in names:
        raise ValueError(f"names of cameras and microphones must differ and must not be 'pose', got {names}")
    if not MEMORY_NAME.fullmatch(values["memory_name"]):
        raise ValueError(f"memory_name must be letters, digits, '-' or '_', got {values['memory_name']!r}")
    # The default directories need a home directory, which a service user may lack. So they are resolved where used.
    for name in ("memory_directory", "engine_directory"):
        values[name] = _directory(name, values[name]) if values[name] else None
    for name in ("pose_frame", "base_frame"):
        values[name] = frame_name(values[name])
    if values["pose_type"] == "tf" and not values["listen_to_tf"]:
        raise ValueError("pose_type is tf, but listen_to_tf is false: set listen_to_tf to true")
    transports = {camera: _transport(node, camera, values["image_transport"]) for camera in values["cameras"]}
    mounts = {camera: mount for camera in values["cameras"] if (mount := _mount(node, camera))}
    network = NetworkSettings(**{entry.name: values[entry.name] for entry in dataclasses.fields(NetworkSettings)})
    server = ServerSettings(**{entry.name: values[entry.name] for entry in dataclasses.fields(ServerSettings)})
    own = {entry.name: values[entry.name] for entry in dataclasses.fields(Settings) if entry.name in values}
    offsets = {name: float(node.get_parameter(f"{name}.stamp_offset_s").value) for name in [*names, POSE_SOURCE]}
    return NodeParameters(values, transports, Settings(network, server, mounts=mounts, **own), offsets)


def check_sources(parameters: NodeParameters, sources: tuple[str, ...]) -> None:
    """Raise MessageError when a question names a camera or microphone that the node does not have."""
    known = [*parameters.cameras, *parameters.microphones]
    unknown = [s[:40] for s in sources if s not in known]
    if unknown:
        raise MessageError("invalid_request", f"sources: {unknown} are unknown; this node has {known}")


def _descriptor(entry: _Entry) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=entry.text, read_only=not entry.dynamic)
    if entry.choices:
        descriptor.additional_constraints = "one of: " + ", ".join(entry.choices)
    if entry.low is not None and entry.high is not None:
        if isinstance(entry.default, float):
            bounds = FloatingPointRange(from_value=float(entry.low), to_value=float(entry.high))
            descriptor.floating_point_range = [bounds]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(entry.low), to_value=int(entry.high), step=1)]
    return descriptor


def _check(name: str, entry: _Entry, value: Any) -> None:
    if entry.choices and value not in entry.choices:
        raise ValueError(f"{name} must be one of {', '.join(entry.choices)}, got {value!r}")
    if entry.low is not None and entry.high is not None and not entry.low <= value <= entry.high:
        raise ValueError(f"{name} must be in {entry.low}..{entry.high}, got {value}")


def _refuse_bad(parameters: list[Parameter]) -> SetParametersResult:
    for parameter in parameters:
        entry = ENTRIES.get(parameter.name)
        if entry is not None:
            try:
                _check(parameter.name, entry, parameter.value)
            except (ValueError, TypeError) as error:
                return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _directory(name: str, text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError(
            f"{name}: {text} begins with ~, but this user has no home directory; give a full path"
        ) from None


def _mount(node: Node, camera: str) -> tuple[float, ...] | None:
    value = node.get_parameter_or(f"{camera}.mount", None)
    numbers = tuple(float(v) for v in value.value) if value is not None and value.value else ()
    if numbers and len(numbers) != 6:
        raise ValueError(f"{camera}.mount needs 6 numbers (x y z roll pitch yaw), got {len(numbers)}")
    return numbers or None


def _transport(node: Node, camera: str, default: str) -> str:
    value = str(node.get_parameter(f"{camera}.image_transport").value) or default
    if value not in IMAGE_TOPICS:
        raise ValueError(f"{camera}.image_transport must be one of {', '.join(IMAGE_TOPICS)}, got {value!r}")
    return value
