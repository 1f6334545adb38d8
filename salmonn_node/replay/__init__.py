"""Bags in, scores and a report out; never rclpy."""
