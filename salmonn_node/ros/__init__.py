"""The only room that imports rclpy: node, parameters, diagnostics, planner client."""
