"""Tests of the node over real ROS: a node process, and a robot's side of the graph in the test."""
