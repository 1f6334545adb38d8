"""CameraInfo and transforms become camera models and poses; what makes no camera is refused."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from salmonn_node.messages import MessageError, RosbagsTypes, camera_model_from_message, transforms_from_message
from salmonn_node.messages.base import header_message

JAZZY = RosbagsTypes(get_typestore(Stores.ROS2_JAZZY))  # tf2_msgs is not among the wheels


def camera_info(types, *, roi=(0, 0, 0, 0), binning=(0, 0), **change):
    x, y, width, height = roi
    fields = {
        "header": header_message(types, 1, "front_optical"),
        "width": 1280,
        "height": 720,
        "distortion_model": "plumb_bob",
        "d": np.array([0.1, -0.2, 0.0, 0.0, 0.0]),
        "k": np.array([1000.0, 0, 640, 0, 900, 360, 0, 0, 1]),
        "r": np.eye(3).reshape(-1),
        "p": np.zeros(12),
        "binning_x": binning[0],
        "binning_y": binning[1],
        "roi": types.new(
            "sensor_msgs/msg/RegionOfInterest", x_offset=x, y_offset=y, width=width, height=height, do_rectify=False
        ),
    }
    return types.new("sensor_msgs/msg/CameraInfo", **(fields | change))


def test_a_whole_picture(types):
    model = camera_model_from_message(camera_info(types))
    assert (model.width, model.height, model.frame_id) == (1280, 720, "front_optical")
    np.testing.assert_allclose(model.matrix, [[1000, 0, 640], [0, 900, 360], [0, 0, 1]])
    np.testing.assert_allclose(model.coefficients, [0.1, -0.2, 0, 0, 0])


def test_a_rectified_picture_is_formed_by_p_without_distortion(types):
    p = np.array([800.0, 0, 630, 0, 0, 800, 350, 0, 0, 0, 1, 0])
    model = camera_model_from_message(camera_info(types, p=p), rectified=True)
    np.testing.assert_allclose(model.matrix, [[800, 0, 630], [0, 800, 350], [0, 0, 1]])
    assert not model.coefficients.any()
    unknown = camera_model_from_message(camera_info(types), rectified=True)
    np.testing.assert_allclose(unknown.matrix, [[1000, 0, 640], [0, 900, 360], [0, 0, 1]])


def test_ros_1_names_its_arrays_with_capital_letters_and_frames_with_a_slash():
    store = get_typestore(Stores.ROS1_NOETIC)
    types = RosbagsTypes(store)
    header = types.new(
        "std_msgs/msg/Header",
        seq=1,
        stamp=types.new("builtin_interfaces/msg/Time", sec=0, nanosec=1),
        frame_id="/front",
    )
    roi = types.new("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    fields = {"header": header, "height": 720, "width": 1280, "distortion_model": "plumb_bob", "binning_x": 0}
    arrays = {"D": np.array([0.1, 0, 0, 0, 0]), "R": np.eye(3).reshape(-1), "P": np.zeros(12)}
    k = np.array([1000.0, 0, 640, 0, 900, 360, 0, 0, 1])
    info = types.new("sensor_msgs/msg/CameraInfo", K=k, binning_y=0, roi=roi, **fields, **arrays)
    model = camera_model_from_message(info)
    assert (model.matrix[0, 0], model.coefficients[0], model.frame_id) == (1000.0, 0.1, "front")


def test_the_matrix_is_that_of_the_pictures_own_pixels(types):
    model = camera_model_from_message(camera_info(types, roi=(240, 60, 800, 600), binning=(2, 2)))
    assert (model.width, model.height) == (400, 300)
    np.testing.assert_allclose(model.matrix, [[500, 0, 200], [0, 450, 150], [0, 0, 1]])


@pytest.mark.parametrize(
    "change",
    [
        {"k": np.zeros(9)},
        {"k": np.full(9, np.nan)},
        {"k": np.array([-1000.0, 0, 640, 0, 900, 360, 0, 0, 1])},
        {"width": 0},
        {"d": np.array([np.inf, 0, 0, 0, 0])},
    ],
)
def test_what_is_no_camera_is_refused(types, change):
    with pytest.raises(MessageError) as error:
        camera_model_from_message(camera_info(types, **change))
    assert error.value.reason == "camera_info_bad"


def test_transforms_are_poses_of_their_children():
    transform = JAZZY.new(
        "geometry_msgs/msg/TransformStamped",
        header=header_message(JAZZY, 5, "/map"),
        child_frame_id="odom",
        transform=JAZZY.new(
            "geometry_msgs/msg/Transform",
            translation=JAZZY.new("geometry_msgs/msg/Vector3", x=1.0, y=2.0, z=3.0),
            rotation=JAZZY.new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        ),
    )
    (pose,) = transforms_from_message(JAZZY.new("tf2_msgs/msg/TFMessage", transforms=[transform]))
    assert (pose.stamp_ns, pose.frame_id, pose.child_frame_id) == (5, "map", "odom")
    assert pose.position.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(MessageError) as error:
        transforms_from_message(JAZZY.new("tf2_msgs/msg/TFMessage", transforms=[transform] * 1001))
    assert error.value.reason == "transform_too_many"
