"""Writes observations into a rosbag2 (MCAP) as the messages that a robot's drivers would have sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.messages.base import RosbagsTypes, header_message, time_message
from salmonn_node.messages.poses import pose_to_message
from salmonn_node.stream.observations import AudioChunk, Frame, Pose

S16LE = 0
STATIC_TOPIC = "/tf_static"
_UNLIMITED = QosTime(9_223_372_036, 854_775_807)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _UNLIMITED,
    _UNLIMITED,
    QosLiveliness.AUTOMATIC,
    _UNLIMITED,
    False,
)


class BagWriter:
    """A new bag; use it in a `with` statement. Messages may come in any order of topics, stamps are the log times.

    Topics: `/<source>/image/compressed` or `/<source>/image`, `/<source>/camera_info`, `/<source>/audio`, `/odom`,
    `/tf`, `/tf_static`.

    Args:
        path: folder of the bag, which must not exist.
        jpeg_quality: 1..100; 0 writes raw rgb8 images.
        pose_topic: topic of the poses.
    """

    def __init__(self, path: Path, *, jpeg_quality: int = 85, pose_topic: str = "/odom") -> None:
        if not 0 <= jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must lie in 0..100, got {jpeg_quality}")
        self.types = RosbagsTypes(bag_typestore())
        self.jpeg_quality = jpeg_quality
        self.pose_topic = pose_topic
        self._writer = Writer(Path(path), version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Write any message of the typestore at `stamp_ns`."""
        name = message.__msgtype__
        if topic not in self._connections:
            # A player must offer static transforms to listeners that come later, or nobody hears them.
            profiles = [LATCHED] if topic == STATIC_TOPIC else []
            self._connections[topic] = self._writer.add_connection(
                topic, name, typestore=bag_typestore(), offered_qos_profiles=profiles
            )
        self._writer.write(self._connections[topic], stamp_ns, bag_typestore().serialize_cdr(message, name))

    def frame(self, frame: Frame) -> None:
        """Write a camera image, compressed or raw."""
        header = header_message(self.types, frame.stamp_ns, frame.frame_id)
        if self.jpeg_quality:
            bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
            if not done:
                raise ValueError(f"image of shape {frame.image.shape} cannot be encoded as JPEG")
            data = np.frombuffer(jpeg.tobytes(), np.uint8)
            message = self.types.new("sensor_msgs/msg/CompressedImage", header=header, format="jpeg", data=data)
            self.write(f"/{frame.source}/image/compressed", message, frame.stamp_ns)
            return
        height, width = frame.image.shape[:2]
        message = self.types.new(
            "sensor_msgs/msg/Image",
            header=header,
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(frame.image).reshape(-1),
        )
        self.write(f"/{frame.source}/image", message, frame.stamp_ns)

    def sound(self, chunk: AudioChunk) -> None:
        """Write a chunk of sound as 16-bit integers."""
        samples = chunk.samples if chunk.samples.ndim == 2 else chunk.samples[:, None]
        data = np.clip(np.rint(samples * 32767), -32768, 32767).astype("<i2")
        message = self.types.new(
            "salmonn_interfaces/msg/AudioChunk",
            header=header_message(self.types, chunk.stamp_ns, chunk.frame_id),
            sample_rate_hz=chunk.rate_hz,
            channels=samples.shape[1],
            encoding=S16LE,
            data=np.frombuffer(data.tobytes(), np.uint8),
        )
        self.write(f"/{chunk.source}/audio", message, chunk.stamp_ns)

    def pose(self, pose: Pose) -> None:
        """Write a pose as Odometry with zero velocity."""
        new = self.types.new
        still = new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        message = new(
            "nav_msgs/msg/Odometry",
            header=header_message(self.types, pose.stamp_ns, pose.frame_id),
            child_frame_id=pose.child_frame_id,
            pose=pose_to_message(self.types, pose).pose,
            twist=new(
                "geometry_msgs/msg/TwistWithCovariance",
                twist=new("geometry_msgs/msg/Twist", linear=still, angular=still),
                covariance=np.zeros(36),
            ),
        )
        self.write(self.pose_topic, message, pose.stamp_ns)

    def camera_info(self, stamp_ns: int, source: str, frame_id: str, size: tuple[int, int], focal_px: float) -> None:
        """Write the intrinsics of a pinhole camera without distortion; `size` is (width, height) in pixels."""
        width, height = size
        cx, cy = width / 2, height / 2
        matrix = [focal_px, 0.0, cx, 0.0, focal_px, cy, 0.0, 0.0, 1.0]
        region = self.types.new(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self.types.new(
            "sensor_msgs/msg/CameraInfo",
            header=header_message(self.types, stamp_ns, frame_id),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=np.array(matrix),
            r=np.eye(3).reshape(-1),
            p=np.array([focal_px, 0.0, cx, 0.0, 0.0, focal_px, cy, 0.0, 0.0, 0.0, 1.0, 0.0]),
            binning_x=0,
            binning_y=0,
            roi=region,
        )
        self.write(f"/{source}/camera_info", message, stamp_ns)

    def transforms(self, stamp_ns: int, places: Sequence[Pose], *, static: bool = False) -> None:
        """Write where frames (`child_frame_id`) lie in their parents (`frame_id`), as one message."""
        new = self.types.new
        found = []
        for place in places:
            x, y, z = (float(v) for v in place.position)
            qx, qy, qz, qw = (float(v) for v in place.orientation)
            transform = new(
                "geometry_msgs/msg/Transform",
                translation=new("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
                rotation=new("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
            )
            found.append(
                new(
                    "geometry_msgs/msg/TransformStamped",
                    header=header_message(self.types, stamp_ns, place.frame_id),
                    child_frame_id=place.child_frame_id,
                    transform=transform,
                )
            )
        self.write(STATIC_TOPIC if static else "/tf", new("tf2_msgs/msg/TFMessage", transforms=found), stamp_ns)

    def clock(self, stamp_ns: int) -> None:
        """Write ROS time."""
        clock = time_message(self.types, stamp_ns)
        self.write("/clock", self.types.new("rosgraph_msgs/msg/Clock", clock=clock), stamp_ns)
