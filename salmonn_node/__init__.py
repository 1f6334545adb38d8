"""A ROS 2 perception node with a long memory: what the robot sees and hears flows in once, questions read it."""

__version__ = "0.1.0"
