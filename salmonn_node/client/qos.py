"""QoS profiles shared by the node and its clients. Both ends of a topic or service must use the same profile."""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

# For services and actions. The default depth is ten. With it, the middleware would lose most of a hundred simultaneous
# requests, and most of the replies.
MANY_AT_ONCE = QoSProfile(depth=1000, reliability=QoSReliabilityPolicy.RELIABLE)
# For topics that publish a state: a late subscriber still gets the newest message.
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
