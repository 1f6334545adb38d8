"""The ROS 2 node: lifecycle, parameters, topics, services, actions and diagnostics."""
