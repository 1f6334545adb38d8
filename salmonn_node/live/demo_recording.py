"""Where the demo's recording lies: a bag of 84 seconds, its questions, and the truth that made it."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "demo_data"
BAG, QUESTIONS, TRUTH = FOLDER / "bag", FOLDER / "questions.jsonl", FOLDER / "truth.json"
