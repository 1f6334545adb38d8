"""Stands in for the messages of composable nodes, which launch_ros imports and no launch file here uses."""
