"""QoS profiles that the node and its clients share; the two ends of a topic or service must agree."""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

# For services and actions. The default keeps ten messages: of a hundred requests at once, the middleware would lose
# most, and most of the replies.
MANY_AT_ONCE = QoSProfile(depth=1000, reliability=QoSReliabilityPolicy.RELIABLE)
# For topics that tell a state: whoever subscribes late gets the newest message.
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
