"""Both kinds of message objects: those of rosbags and those of rclpy's packages."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from salmonn_node.messages import MessageTypes, RosbagsTypes, RosTypes

INTERFACES = Path(__file__).parents[2] / "salmonn_interfaces" / "msg"


def rosbags_types() -> RosbagsTypes:
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(INTERFACES.glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(), f"salmonn_interfaces/msg/{path.stem}"))
    return RosbagsTypes(store)


@pytest.fixture(scope="session", params=["rosbags", "rclpy"])
def types(request: pytest.FixtureRequest) -> MessageTypes:
    return rosbags_types() if request.param == "rosbags" else RosTypes()
