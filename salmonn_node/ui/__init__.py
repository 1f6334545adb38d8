"""The page beside the robot: ask, see what is remembered, watch, forget; served to a browser by `salmonn ui`."""
