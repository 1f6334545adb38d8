"""Which topic is read is decided by what messages show; what is not read is named with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replay.bags import START_NS, jpeg
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from salmonn_node.messages import RosbagsTypes, pose_to_message
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.messages.base import header_message
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.pose_choice import PoseTopic, choose_pose
from salmonn_node.replay.topic_choice import TopicChoice, choose_topics
from salmonn_node.replay.topics import BARE_POSE_TYPE, ODOMETRY_TYPE, POSE_TYPES, camera_infos, elsewhere, role_of
from salmonn_node.stream.observations import SECOND_NS, Pose

COVARIANCE_TYPE = POSE_TYPES[0]
MAKE = RosbagsTypes(bag_typestore())
LEVEL = np.array([0.0, 0.0, 0.0, 1.0])


def pose(stamp_ns: int, x: float, frame_id: str, msgtype: str) -> Any:
    """A pose at x metres as a message of a type."""
    stamped = pose_to_message(MAKE, Pose(stamp_ns, frame_id, np.array([x, 0.0, 0.0]), LEVEL))
    if msgtype == COVARIANCE_TYPE:
        return stamped
    if msgtype == BARE_POSE_TYPE:
        return MAKE.new(msgtype, header=stamped.header, pose=stamped.pose.pose)
    vector = MAKE.new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    twist = MAKE.new("geometry_msgs/msg/Twist", linear=vector, angular=vector)
    still = MAKE.new("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36))
    return MAKE.new(msgtype, header=stamped.header, child_frame_id="base_link", pose=stamped.pose, twist=still)


def picture(stamp_ns: int, frame_id: str = "cam", name: str = "jpeg") -> Any:
    return MAKE.new(
        "sensor_msgs/msg/CompressedImage",
        header=header_message(MAKE, stamp_ns, frame_id),
        format=name,
        data=MAKE.data(jpeg(stamp_ns)),
    )


def chosen(path: Path, messages: Iterable[tuple[float, str, Any]], **arguments: Any) -> TopicChoice:
    """The choice in a bag of (seconds since the start, topic, message)."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for second, topic, message in sorted(messages, key=lambda item: item[0]):
            name = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=bag_typestore())
            data = bag_typestore().serialize_cdr(message, name)
            writer.write(connections[topic], START_NS + round(second * SECOND_NS), data)
    with Bag(path) as bag:
        return choose_topics(bag, **arguments)


def poses(topic: str, msgtype: str, frame: str, rate: float, speed: float = 0.5, seconds: float = 20.0) -> list[Any]:
    times = [i / rate for i in range(round(seconds * rate))]
    return [(t, topic, pose(START_NS + round(t * SECOND_NS), speed * t, frame, msgtype)) for t in times]


CAMERA = [(second, "/front/image/compressed", picture(START_NS + second * SECOND_NS)) for second in range(20)]


@pytest.mark.parametrize(
    "other",
    [
        poses("/goal_pose", BARE_POSE_TYPE, "map", 2.0),
        poses("/move_base_simple/goal", BARE_POSE_TYPE, "map", 20.0),
        poses("/initialpose", COVARIANCE_TYPE, "map", 1.0, seconds=1),
        poses("/initialpose", COVARIANCE_TYPE, "map", 10.0),
        poses("/planner/waypoint", BARE_POSE_TYPE, "map", 10.0),
        poses("/mavros/setpoint_position/local", BARE_POSE_TYPE, "map", 10.0),
        poses("/targetPose", BARE_POSE_TYPE, "map", 10.0),
        poses("/tag_42", BARE_POSE_TYPE, "cam", 10.0),  # the camera's own frame
        poses("/hand", BARE_POSE_TYPE, "base_link", 10.0),
        poses("/charger", BARE_POSE_TYPE, "map", 10.0, speed=0.0),  # stands while the robot drives
        poses("/somebody", BARE_POSE_TYPE, "map", 10.0, speed=2.0),
        poses("/once", COVARIANCE_TYPE, "map", 1.0, seconds=2),
    ],
    ids=lambda other: other[0][1],
)
def test_the_robots_place_is_none_of_these(tmp_path: Path, other: list[Any]) -> None:
    odometry = poses("/odom", ODOMETRY_TYPE, "odom", 20.0)
    choice = chosen(tmp_path / "bag", [*CAMERA, *odometry, *other])
    assert choice.pose == "/odom"
    assert choice.ignored[other[0][1]]
    assert choice.reasons == ["/odom is the robot's pose: 20.0 Hz over 100 % of the recording, in frame odom"]


def test_a_place_in_the_map_beats_odometry_where_it_is_known_as_well(tmp_path: Path) -> None:
    odometry = poses("/odom", ODOMETRY_TYPE, "odom", 20.0)
    localised = poses("/amcl_pose", COVARIANCE_TYPE, "map", 2.0)
    assert chosen(tmp_path / "all", [*CAMERA, *odometry, *localised]).pose == "/amcl_pose"
    seldom = poses("/amcl_pose", COVARIANCE_TYPE, "map", 2.0, seconds=6)
    choice = chosen(tmp_path / "seldom", [*CAMERA, *odometry, *seldom])
    assert choice.pose == "/odom"
    told = chosen(tmp_path / "told", [*CAMERA, *odometry, *seldom], pose="/amcl_pose")
    assert (told.pose, told.ignored["/odom"]) == ("/amcl_pose", "another pose was asked for")
    assert chosen(tmp_path / "none", [*CAMERA, *odometry], pose="").pose == ""


def transforms(
    topic: str, rate: float, parent: str, child: str, speed: float = 0.5, seconds: float = 20.0
) -> list[Any]:
    """Transforms that move a frame in its parent."""
    found = []
    for t in [i / rate for i in range(round(seconds * rate))]:
        place = MAKE.new("geometry_msgs/msg/Vector3", x=speed * t, y=0.0, z=0.0)
        turn = MAKE.new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
        stamped = MAKE.new(
            "geometry_msgs/msg/TransformStamped",
            header=header_message(MAKE, START_NS + round(t * SECOND_NS), parent),
            child_frame_id=child,
            transform=MAKE.new("geometry_msgs/msg/Transform", translation=place, rotation=turn),
        )
        found.append((t, topic, MAKE.new("tf2_msgs/msg/TFMessage", transforms=[stamped])))
    return found


def test_without_a_pose_topic_tf_tells_where_the_robot_is(tmp_path: Path) -> None:
    wheels = transforms("/tf", 20.0, "robot1/odom", "robot1/base_footprint")
    body = transforms("/tf_static", 1.0, "robot1/base_footprint", "robot1/base_link", speed=0.0, seconds=1)
    arm = transforms("/tf", 10.0, "robot1/base_link", "robot1/gripper")
    localised = transforms("/tf", 5.0, "map", "robot1/odom", speed=0.1)
    recording = [*CAMERA, *wheels, *body, *arm]
    choice = chosen(tmp_path / "map", [*recording, *localised])
    assert (choice.pose, choice.pose_frames) == ("tf", ("map", "robot1/base_link"))
    assert choice.reasons == ["tf tells the robot's pose: robot1/base_link in map, 5.0 Hz over 100 % of the recording"]
    seldom = transforms("/tf", 5.0, "map", "robot1/odom", seconds=5)
    assert chosen(tmp_path / "seldom", [*recording, *seldom]).pose_frames == ("robot1/odom", "robot1/base_link")
    odometry = poses("/odom", ODOMETRY_TYPE, "odom", 20.0)
    assert chosen(tmp_path / "topic", [*recording, *localised, *odometry]).pose == "/odom"
    assert chosen(tmp_path / "asked", [*recording, *localised, *odometry], pose="tf").pose == "tf"
    assert chosen(tmp_path / "none", [*recording, *localised], pose="").pose == ""
    with BagStream(tmp_path / "map", map_id="house") as stream:
        found = [observation for _, observation in stream if isinstance(observation, Pose)]
    assert len(found) > 150
    for at in found:
        t = (at.stamp_ns - START_NS) / SECOND_NS
        np.testing.assert_allclose(at.position[0], 0.6 * t, atol=1e-6)
        assert (at.frame_id, at.child_frame_id, at.map_id) == ("map", "robot1/base_link", "house")


def test_tf_that_moves_no_robot_tells_no_pose(tmp_path: Path) -> None:
    mount = transforms("/tf_static", 1.0, "base_link", "cam", speed=0.0, seconds=1)
    arm = transforms("/tf", 10.0, "base_link", "gripper")
    assert chosen(tmp_path / "bag", [*CAMERA, *mount, *arm]).pose == ""
    with pytest.raises(ValueError, match="tf does not tell where the robot is"):
        chosen(tmp_path / "asked", [*CAMERA, *mount, *arm], pose="tf")


def test_a_recording_of_goals_alone_has_no_pose(tmp_path: Path) -> None:
    choice = chosen(tmp_path / "bag", [*CAMERA, *poses("/goal_pose", BARE_POSE_TYPE, "map", 5.0)])
    assert choice.pose == ""
    assert choice.ignored["/goal_pose"] == "its name says goal: not where the robot is"


def test_the_choice_of_poses_by_evidence() -> None:
    odometry = PoseTopic("/odom", ODOMETRY_TYPE, 1_000, "odom", 50.0, 1.0, 10.0)
    bare = replace(odometry, topic="/bare", msgtype=BARE_POSE_TYPE)
    for tracks in ([odometry, bare], [bare, odometry]):
        assert choose_pose(tracks)[0] == "/odom"  # with covariance, whatever the order
    rides = replace(odometry, topic="/marker", frame_id="gripper", rides=True)
    topic, why, left_out = choose_pose([rides])
    assert (topic, why) == ("", "")
    assert left_out == {"/marker": "its poses are in frame gripper, which moves with the robot"}
    unread = replace(odometry, frame_id="")
    assert choose_pose([unread])[2] == {"/odom": "its messages have no frame or cannot be read"}
    assert choose_pose([]) == ("", "", {})


@pytest.mark.parametrize(
    ("topic", "word"),
    [
        ("/goal_pose", "goal"),
        ("/robot1/initialpose", "initialpose"),
        ("/nextGoal", "goal"),
        ("/cmd/pose", "cmd"),
        ("/amcl_pose", ""),
        ("/robot/localization/pose", ""),
        ("/goalkeeper/pose", ""),
    ],
)
def test_names_that_say_that_a_pose_is_elsewhere(topic: str, word: str) -> None:
    assert elsewhere(topic, BARE_POSE_TYPE) == word
    assert elsewhere("/planner/odom", ODOMETRY_TYPE) == ""


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("/front/image/compressed", "front"),
        ("/front/image_raw", "front"),
        ("/camera/camera/color/image_rect_raw/compressed", "camera_camera_color"),
        ("/zed/left/image_rect_color", "zed_left"),
        ("/oak/rgb/image_raw/ffmpeg", "oak_rgb"),
        ("/image_raw", "camera"),
        ("/image_left", "image_left"),
    ],
)
def test_a_camera_has_the_name_of_its_topic(topic: str, name: str) -> None:
    assert role_of(topic, "sensor_msgs/msg/Image") == ("camera", name)


@pytest.mark.parametrize(
    "camera",
    [
        "/ns/image", "/ns/image_raw", "/ns/image_rect_raw/compressed", "/ns/image_rect_color/ffmpeg", "/ns/anything",
        "/ns/image_mono/theora", "/ns/color_image_of_ours/compressed",
    ],
)  # fmt: skip
def test_camera_info_is_found_beside_the_images_whatever_they_are_called(camera: str) -> None:
    assert camera_infos({"x": camera}, ["/ns/camera_info", "/other/camera_info"], {}) == {"x": "/ns/camera_info"}


def test_camera_info_elsewhere_is_found_by_its_frame_or_name() -> None:
    frames = {"/usb/image": "cam", "/calibration": "cam", "/far/camera_info": "far"}
    assert camera_infos({"usb": "/usb/image"}, ["/calibration", "/far/camera_info"], frames) == {"usb": "/calibration"}
    assert camera_infos({"usb": "/usb/image"}, ["/far/camera_info"], frames) == {}
    assert camera_infos({"camera": "/camera"}, ["/camera_info"], {}) == {"camera": "/camera_info"}


def test_depth_beside_a_camera_and_two_cameras_of_one_namespace(tmp_path: Path) -> None:
    depth = [
        (second, "/depth/image/compressed", picture(START_NS + second * SECOND_NS, "depth", "16UC1; png compressed "))
        for second in range(5)
    ]
    rear = [(s, "/front/image_raw/compressed", picture(START_NS + s * SECOND_NS, "rear")) for s in range(5)]
    choice = chosen(tmp_path / "bag", [*CAMERA, *depth, *rear])
    assert choice.cameras == {
        "front": "/front/image/compressed",
        "front_image_raw_compressed": "/front/image_raw/compressed",
    }
    assert choice.ignored["/depth/image/compressed"].startswith("its pictures hold measurements, not colours (16UC1")
    same = [(s, "/front/image_raw/compressed", picture(START_NS + s * SECOND_NS)) for s in range(5)]
    choice = chosen(tmp_path / "same", [*CAMERA, *same])
    assert choice.ignored == {"/front/image_raw/compressed": "the same sensor is read from /front/image/compressed"}


def test_a_long_recording_is_looked_at_in_stretches(tmp_path: Path) -> None:
    """An hour of odometry, and a localisation that gives up after ten minutes."""
    odometry = poses("/odom", ODOMETRY_TYPE, "odom", 1.0, seconds=3_600)
    localised = poses("/amcl_pose", COVARIANCE_TYPE, "map", 1.0, seconds=600)
    choice = chosen(tmp_path / "bag", [*CAMERA, *odometry, *localised])
    assert choice.pose == "/odom"
    (reason,) = choice.reasons
    assert "1.0 Hz" in reason
    assert math.isclose(float(reason.split(" % ")[0].split()[-1]), 100, abs_tol=2)


def test_sound_without_stamps_is_named_with_what_to_record_instead(tmp_path: Path) -> None:
    store = bag_typestore.__wrapped__()
    store.register(get_types_from_msg("uint8[] data", "audio_common_msgs/msg/AudioData"))
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection("/front/image/compressed", CAMERA[0][2].__msgtype__, typestore=store)
        sound = writer.add_connection("/audio/audio", "audio_common_msgs/msg/AudioData", typestore=store)
        for second, _, message in CAMERA:
            stamp_ns = START_NS + second * SECOND_NS
            writer.write(camera, stamp_ns, store.serialize_cdr(message, message.__msgtype__))
            chunk = store.types["audio_common_msgs/msg/AudioData"](data=np.zeros(100, np.uint8))
            writer.write(sound, stamp_ns, store.serialize_cdr(chunk, chunk.__msgtype__))
    with BagStream(tmp_path / "bag") as stream:
        (note,) = [note for note in stream.report.notes if note.startswith("/audio/audio")]
    assert "record `audio_stamped`" in note
