"""Subscriptions of the node: sensor topics go to the observer, CameraInfo and tf to the grounding."""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from salmonn_node.answering.grounding import Grounding
from salmonn_node.messages import (
    AudioFormat,
    CameraPictures,
    MessageError,
    audio_chunk,
    audio_format,
    camera_model_from_message,
    message_stamp_ns,
    pose_from_message,
    shows_rectified,
    transforms_from_message,
)
from salmonn_node.ros.monitor import InputMonitor
from salmonn_node.ros.parameters import IMAGE_TOPICS, NodeParameters
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, EncodedFrame, Pose
from salmonn_node.stream.stamp_offset import POSE_SOURCE, corrected
from salmonn_node.stream.tf_poses import TfPoses

POSE_TYPES = {"odometry": Odometry, "pose": PoseStamped, "pose_with_covariance": PoseWithCovarianceStamped}
AUDIO_INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
TF_TYPE = "tf2_msgs/msg/TFMessage"
TF_DEPTH = 100
VIDEO_DEPTH = 60


class Sink(Protocol):
    """The receiver of observations; the node uses the observer."""

    def submit(self, observation: EncodedFrame | AudioChunk | Pose) -> str:
        """Accept or refuse an observation; returns "queued" or the reason of the refusal."""

    def refuse(self, source: str, reason: str) -> None:
        """Count a message that could not be converted to an observation."""


class Inputs:
    """The subscriptions of an active node.

    Attributes:
        monitors: statistics of each topic, by source name.
        camera_info: state of each camera's CameraInfo, in words.
        tf: state of the tf subscription, in words.
        tf_refused: number of refused transforms, by reason.
    """

    def __init__(self, node: Node, parameters: NodeParameters, sink: Sink, grounding: Grounding | None = None) -> None:
        self._node = node
        self._parameters = parameters
        self._sink = sink
        self._grounding = grounding or Grounding()
        self._entities: list[Any] = []
        self._audio_formats: dict[str, AudioFormat] = {}
        self._untyped: dict[str, Callable[[str], None]] = {}  # topic -> function that subscribes, given the type
        self.monitors: dict[str, InputMonitor] = {}
        self.camera_info: dict[str, str] = {}
        self.tf = "off"
        self.tf_refused: Counter[str] = Counter()
        for camera in parameters.cameras:
            self._subscribe_camera(camera)
        for microphone in parameters.microphones:
            self._subscribe_microphone(microphone)
        self._tf_poses: TfPoses | None = None
        if parameters.pose_type != "none":
            self.monitors[POSE_SOURCE] = InputMonitor(POSE_SOURCE)
        if parameters.pose_type == "tf":
            frames = parameters.pose_frame, parameters.base_frame
            self._tf_poses = TfPoses(self._grounding.frames, *frames, map_id=parameters.map_id)
        elif parameters.pose_type != "none":
            qos = QoSProfile(depth=parameters.pose_depth, reliability=_reliability(parameters.pose_reliability))
            map_id, base_frame = parameters.map_id, parameters.base_frame
            convert = self._callback(POSE_SOURCE, lambda msg: pose_from_message(msg, map_id, base_frame))
            self._subscribe(POSE_TYPES[parameters.pose_type], "pose", convert, qos, MutuallyExclusiveCallbackGroup())
        if parameters.listen_to_tf:
            self._subscribe_tf()

    def close(self) -> None:
        """Stop receiving."""
        for subscription in self._entities:
            self._node.destroy_subscription(subscription)
        self._entities.clear()
        self._untyped.clear()

    def find_types(self) -> None:
        """Subscribe to topics of unknown type whose publisher has appeared. Call it periodically."""
        if not self._untyped:
            return
        types = dict(self._node.get_topic_names_and_types())
        for topic in list(self._untyped):
            found = types.get(self._node.resolve_topic_name(topic))
            if found:
                self._untyped.pop(topic)(found[0])

    # -- subscriptions --------------------------------------------------------------------------------------------

    def _subscribe(self, message_type: Any, topic: str, callback: Any, qos: QoSProfile, group: Any) -> None:
        self._entities.append(self._node.create_subscription(message_type, topic, callback, qos, callback_group=group))

    def _subscribe_camera(self, camera: str) -> None:
        parameters = self._parameters
        self.monitors[camera] = InputMonitor(camera, parameters.image_rate_hz)
        # Each source has its own group: sources do not wait for each other, and one source's messages stay in order.
        group = MutuallyExclusiveCallbackGroup()
        transport = parameters.transports[camera]
        topic = f"{camera}/{IMAGE_TOPICS[transport]}"
        # Keep a longer history, because a lost video packet spoils the packets after it.
        depth = max(parameters.image_depth, VIDEO_DEPTH) if transport == "video" else parameters.image_depth
        qos = QoSProfile(depth=depth, reliability=_reliability(parameters.image_reliability))
        callback = self._callback(camera, CameraPictures(camera))
        if transport == "video":
            self._untyped[topic] = partial(self._subscribe_video, camera, topic, callback, qos, group)
            self.find_types()
        else:
            kind = CompressedImage if transport == "compressed" else Image
            self._subscribe(kind, topic, callback, qos, group)
        rectified = shows_rectified(self._node.resolve_topic_name(topic))

        def keep_info(msg: CameraInfo) -> None:
            try:
                model = camera_model_from_message(msg, rectified=rectified)
            except MessageError as error:
                # Drivers of uncalibrated cameras send zeros. This is no fault, but object positions need calibration.
                self.camera_info[camera] = f"not usable: {error}"
                return
            offset_ns = round(parameters.stamp_offsets.get(camera, 0.0) * SECOND_NS)
            self._grounding.cameras.add(camera, message_stamp_ns(msg) + offset_ns, model)
            self.camera_info[camera] = f"{msg.width}x{msg.height} fx={model.matrix[0, 0]:.1f}"

        best_effort = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._subscribe(CameraInfo, f"{camera}/camera_info", keep_info, best_effort, group)

    def _subscribe_video(self, camera: str, topic: str, callback: Any, qos: QoSProfile, group: Any, name: str) -> None:
        try:
            self._subscribe(_message_type(name), topic, callback, qos, group)
        except (ImportError, AttributeError, ValueError) as error:
            self.monitors[camera].last_error = f"cannot subscribe to type {name}: {error}"
            self._node.get_logger().error(f"{topic}: {self.monitors[camera].last_error}")

    def _subscribe_tf(self) -> None:
        """Subscribe to tf. Without the package tf2_msgs there is no tf, and diagnostics say so."""
        try:
            message_type = _message_type(TF_TYPE)
        except (ImportError, AttributeError) as error:
            self.tf = f"not subscribed: {error}"
            self._node.get_logger().info(f"/tf is {self.tf}")
            if self._tf_poses is not None:
                self.monitors[POSE_SOURCE].last_error = f"/tf is {self.tf}"
            return

        def keep(msg: Any, *, static: bool) -> None:
            try:
                transforms = transforms_from_message(msg)
            except MessageError as error:
                self.tf_refused[error.reason] += 1
                return
            for transform in transforms:
                admission = self._grounding.frames.add(transform, static=static)
                if admission not in ("taken", "transform_passed_over"):
                    self.tf_refused[admission] += 1
            if self._tf_poses is not None:
                self._submit_poses(self._tf_poses.poses(transforms))

        self.tf = "subscribed"
        group = MutuallyExclusiveCallbackGroup()
        latched = QoSProfile(depth=TF_DEPTH, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._subscribe(message_type, "/tf", partial(keep, static=False), QoSProfile(depth=TF_DEPTH), group)
        self._subscribe(message_type, "/tf_static", partial(keep, static=True), latched, group)

    def _submit_poses(self, poses: list[Pose]) -> None:
        for pose in poses:
            self.monitors[POSE_SOURCE].arrived(pose.stamp_ns, self._node.get_clock().now().nanoseconds, 0)
            self._sink.submit(corrected(pose, self._parameters.stamp_offsets))

    def _subscribe_microphone(self, microphone: str) -> None:
        self.monitors[microphone] = InputMonitor(microphone)
        group = MutuallyExclusiveCallbackGroup()
        if self._parameters.audio_type == "auto":
            self._untyped[f"{microphone}/audio"] = partial(self._subscribe_sound, microphone, group)
            self.find_types()
        else:
            self._subscribe_sound(microphone, group, self._parameters.audio_type)

    def _subscribe_sound(self, microphone: str, group: Any, type_name: str) -> None:
        parameters = self._parameters
        qos = QoSProfile(depth=parameters.audio_depth, reliability=_reliability(parameters.audio_reliability))
        try:
            message_type = _message_type(type_name)
            if type_name == "audio_common_msgs/msg/AudioDataStamped":
                self._subscribe_info(microphone, group)
        except (ImportError, AttributeError, ValueError) as error:
            self.monitors[microphone].last_error = f"cannot subscribe to type {type_name}: {error}"
            self._node.get_logger().error(f"{microphone}/audio: {self.monitors[microphone].last_error}")
            return
        callback = self._callback(
            microphone, lambda msg: audio_chunk(msg, microphone, self._audio_formats.get(microphone))
        )
        self._subscribe(message_type, f"{microphone}/audio", callback, qos, group)

    def _subscribe_info(self, microphone: str, group: Any) -> None:
        def keep_format(msg: Any) -> None:
            self._audio_formats[microphone] = audio_format(msg, self._audio_formats.get(microphone))

        # The publisher latches this topic. A late subscriber must request the latched message.
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self._subscribe(_message_type(AUDIO_INFO_TYPE), f"{microphone}/audio_info", keep_format, latched, group)

    # -- the callback ---------------------------------------------------------------------------------------------

    def _callback(self, source: str, convert: Callable[[Any], Any]) -> Callable[[Any], None]:
        monitor = self.monitors[source]
        clock = self._node.get_clock()

        def callback(msg: Any) -> None:
            started, worked = time.perf_counter(), time.thread_time()
            size = len(msg.data) if hasattr(msg, "data") else 0
            monitor.arrived(message_stamp_ns(msg), clock.now().nanoseconds, size)
            try:
                observation = convert(msg)
                if observation is not None:
                    self._sink.submit(corrected(observation, self._parameters.stamp_offsets))
            except MessageError as error:
                monitor.last_error = str(error)
                self._sink.refuse(source, error.reason)
            except Exception as error:
                # An unexpected message must not end the node. It is counted and logged.
                monitor.last_error = f"{type(error).__name__}: {error}"
                self._sink.refuse(source, "unexpected_error")
                self._node.get_logger().error(f"{source}: {monitor.last_error}", throttle_duration_sec=10.0)
            monitor.callback_s.append(time.perf_counter() - started)
            monitor.callback_cpu_s.append(time.thread_time() - worked)

        return callback


def _reliability(name: str) -> QoSReliabilityPolicy:
    return QoSReliabilityPolicy.RELIABLE if name == "reliable" else QoSReliabilityPolicy.BEST_EFFORT


def _message_type(name: str) -> Any:
    """Class of "package/msg/Type"; raises ImportError when the package is not installed."""
    package, kind, cls = name.split("/")
    if kind != "msg":
        raise ValueError(f"{name} is no message type")
    return getattr(importlib.import_module(f"{package}.msg"), cls)
