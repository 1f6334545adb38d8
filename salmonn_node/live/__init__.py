"""Drives real node processes: the bag player, the demo, and live against offline."""
