"""QoS profiles shared by the node and its clients. Both ends of a topic or service must use the same profile."""

from __future__ import annotations

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

# For services and actions. The default depth is ten. With it, the middleware would lose most of a hundred simultaneous
# requests, and most of the replies.
MANY_AT_ONCE = QoSProfile(depth=1000, reliability=QoSReliabilityPolicy.RELIABLE)
# The same for the three services of an action: keyword arguments of rclpy's ActionServer and ActionClient.
ACTION_QOS = {f"{service}_service_qos_profile": MANY_AT_ONCE for service in ("goal", "result", "cancel")}
# For what is sent again. A reliable reader takes messages in order: what follows a lost message waits until the writer
# sends that one again. Fast DDS does so at the next heartbeat, up to 3 s later, or at once if the writer's queue is
# full. A queue of one is always full, and a writer of its own has lost nothing yet.
REMINDER = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE)
OVERDUE_S = 0.3  # what is overdue is asked for again after each such time
# For topics that publish a state: a late subscriber still gets the newest message.
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
