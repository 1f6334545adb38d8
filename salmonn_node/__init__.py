"""A ROS 2 perception node with a long memory: what the robot sees and hears flows in once, questions read it.

Public, and kept stable:

- `salmonn_node.client`: what a planner imports, `from salmonn_node.client import Memory, AnswerType`
- the command `salmonn` (`salmonn --help`) and the node's executable `memory_node`
- the node's parameters (`ros2 param describe`) and the messages of `salmonn_interfaces`
- the formats on disk: question files, stored memories, checkpoint folders

Everything else may change with any version. docs/architecture.md says what lies where.
"""

__version__ = "0.1.0"
