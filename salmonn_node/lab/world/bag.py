"""Write a stream of the world as a rosbag2 (MCAP): camera, CameraInfo, microphone, odometry and map pose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from salmonn_node.lab.world.camera import camera_matrix
from salmonn_node.lab.world.mount import BASE_FRAME, CAMERA_MOUNT
from salmonn_node.lab.world.randomness import generator
from salmonn_node.lab.world.stream import World
from salmonn_node.lab.world.trajectory import ODOMETRY_HZ, OdometrySample, Pose2D, odometry
from salmonn_node.lab.world.truth import START_NS, Truth, WorldMoment
from salmonn_node.messages.bag_writer import BagWriter
from salmonn_node.messages.base import header_message
from salmonn_node.messages.poses import pose_to_message
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, AudioChunk, Frame, Pose
from salmonn_node.stream.transforms import mounted

WIDTH, HEIGHT = 640, 360
CAMERA, MICROPHONE = "front", "mic"
CAMERA_FRAME, MICROPHONE_FRAME = "front_camera_optical_frame", "mic_link"
ODOMETRY_TOPIC, POSE_TOPIC = "/odom", "/pose"
CHUNKS_PER_S = 10
LOCALISATION_HZ = 5
LOCALISATION_SIGMA_M, LOCALISATION_SIGMA_RAD = 0.04, 0.015


def _pose(stamp_ns: int, frame_id: str, pose: Pose2D, variance_xy: float, variance_yaw: float, map_id: str) -> Pose:
    covariance = np.diag([variance_xy, variance_xy, 1e-6, 1e-6, 1e-6, variance_yaw])
    turn = np.array([0.0, 0.0, np.sin(pose.yaw / 2), np.cos(pose.yaw / 2)])
    return Pose(stamp_ns, frame_id, np.array([pose.x, pose.y, 0.0]), turn, covariance, map_id)


def _odometry(bag: BagWriter, stamp_ns: int, sample: OdometrySample) -> None:
    new = bag.types.new
    pose = _pose(stamp_ns, "odom", sample.pose, sample.variance_xy_m2, sample.variance_yaw_rad2, "")
    twist = new(
        "geometry_msgs/msg/Twist",
        linear=new("geometry_msgs/msg/Vector3", x=sample.speed_m_s, y=0.0, z=0.0),
        angular=new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=sample.turn_rad_s),
    )
    message = new(
        "nav_msgs/msg/Odometry",
        header=header_message(bag.types, stamp_ns, "odom"),
        child_frame_id="base_link",
        pose=pose_to_message(bag.types, pose).pose,
        twist=new("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.diag([1e-3] * 6).reshape(-1)),
    )
    bag.write(ODOMETRY_TOPIC, message, stamp_ns)


def write_bag(
    path: Path,
    world: World,
    *,
    fps: int = 4,
    jpeg_quality: int = 80,
    on_second: Callable[[int], None] = lambda second: None,
) -> Truth:
    """Render a world into a new bag and return its truth.

    Topics: /front/image/compressed and /front/camera_info at `fps`, /mic/audio (AudioChunk, 16 kHz, 0.1 s each),
    /odom at 10 Hz (with drift), /pose at 5 Hz (PoseWithCovarianceStamped in the map, as from a localiser), /tf_static
    (the camera on the robot) once.

    Args:
        path: folder of the bag, which must not exist.
        world: the world to render.
        fps: pictures per second.
        jpeg_quality: 1..100.
        on_second: called after each second, for a progress bar.

    Raises:
        ValueError: `fps` is not positive.
        RuntimeError: OpenGL is not available.
    """
    if fps < 1:
        raise ValueError(f"fps={fps} must be at least 1")
    odom = odometry(world.patrol, world.seed)
    rng = generator(world.seed, "localisation")
    moments: list[WorldMoment] = []
    focal_px = float(camera_matrix(WIDTH, HEIGHT)[0, 0])
    with (
        world.camera(WIDTH, HEIGHT) as camera,
        BagWriter(path, jpeg_quality=jpeg_quality, pose_topic=POSE_TOPIC) as bag,
    ):
        bag.transforms(START_NS, [mounted(BASE_FRAME, CAMERA_FRAME, CAMERA_MOUNT)], static=True)
        for k in range(world.seconds):
            base_ns = START_NS + k * SECOND_NS
            moments.append(world.moment(k, camera.regions(float(k))))
            sound = world.microphone.second(k).reshape(CHUNKS_PER_S, -1, 1)
            todo: list[tuple[int, int, Callable[[int], None]]] = []
            for i in range(ODOMETRY_HZ):
                sample = odom[min(k * ODOMETRY_HZ + i, len(odom) - 1)]
                todo.append((i * SECOND_NS // ODOMETRY_HZ, 0, lambda ns, s=sample: _odometry(bag, ns, s)))
            for i in range(LOCALISATION_HZ):
                true = world.patrol.pose_at(k + i / LOCALISATION_HZ)
                noise = rng.standard_normal(3) * (LOCALISATION_SIGMA_M, LOCALISATION_SIGMA_M, LOCALISATION_SIGMA_RAD)
                seen = Pose2D(true.x + noise[0], true.y + noise[1], true.yaw + noise[2])
                todo.append((i * SECOND_NS // LOCALISATION_HZ, 1, lambda ns, p=seen: _localisation(bag, ns, p, world)))
            for i in range(fps):
                todo.append((i * SECOND_NS // fps, 2, lambda ns, t=k + i / fps: bag.frame(
                    Frame(ns, CAMERA, camera.picture(t), CAMERA_FRAME))))  # fmt: skip
                todo.append((i * SECOND_NS // fps, 3, lambda ns: bag.camera_info(
                    ns, CAMERA, CAMERA_FRAME, (WIDTH, HEIGHT), focal_px)))  # fmt: skip
            for i in range(CHUNKS_PER_S):
                todo.append((i * SECOND_NS // CHUNKS_PER_S, 4, lambda ns, s=sound[i]: bag.sound(
                    AudioChunk(ns, MICROPHONE, s, SAMPLE_RATE_HZ, MICROPHONE_FRAME))))  # fmt: skip
            for offset_ns, _, write in sorted(todo, key=lambda item: item[:2]):
                write(base_ns + offset_ns)
            on_second(k)
    return world.truth(moments)


def _localisation(bag: BagWriter, stamp_ns: int, pose: Pose2D, world: World) -> None:
    estimate = _pose(stamp_ns, "map", pose, LOCALISATION_SIGMA_M**2, LOCALISATION_SIGMA_RAD**2, world.map_id)
    bag.write(POSE_TOPIC, pose_to_message(bag.types, estimate), stamp_ns)
