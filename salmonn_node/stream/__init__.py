"""What was observed and when, and what was asked and answered. numpy only: no torch, no ROS."""
