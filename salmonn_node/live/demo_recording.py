"""Where the demo's recording lies: a bag of 84 seconds, its questions, and the truth that made it."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "demo_data"
BAG, QUESTIONS, TRUTH = FOLDER / "bag", FOLDER / "questions.jsonl", FOLDER / "truth.json"
# /tf_static in the bag says where the camera is. The map's z = 0 is the plane on which things stand, 0.5 m above the
# floor of lab/world/, so that a replay needs no option: the camera is 0.5 m above that plane.
