"""Tests of the page beside the robot."""
