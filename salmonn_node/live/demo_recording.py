"""Where the demo's recording lies: a bag of 84 seconds, its questions, and the truth that made it."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "demo_data"
BAG, QUESTIONS, TRUTH = FOLDER / "bag", FOLDER / "questions.jsonl", FOLDER / "truth.json"
# The bag has no /tf_static, so the node gets this as a parameter: x y z roll pitch yaw (m, rad) of the camera's optical
# frame in base_link, and the height in m on which objects stand. The robot of lab/world/ has the same.
CAMERA_MOUNT = (0.0, 0.0, 1.0, -1.658062789394613, 0.0, -1.5707963267948966)
GROUND_Z_M = 0.5
