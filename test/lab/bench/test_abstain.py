"""`salmonn bench abstain` on a picture and a sound of one's own: every question is counted once."""

from __future__ import annotations

import json
import wave

import cv2
import numpy as np
import pytest

from salmonn_node.cli import main

KINDS = ("not observed", "no or 0", "less than half sure", "invented")


def test_every_question_is_counted_once(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "sounds").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "noise.png"), rng.integers(0, 255, (72, 128, 3), dtype=np.uint8))
    with wave.open(str(tmp_path / "sounds" / "noise.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(rng.integers(-9_000, 9_000, 2 * 44_100, dtype="<i2").tobytes())
    command = ["bench", "abstain", "--images", str(tmp_path / "images"), "--sounds", str(tmp_path / "sounds")]
    assert main([*command, "--seconds", "4", "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())["abstain"]
    for title, name in (("pictures, silence", "noise.png"), ("sounds, a grey wall", "noise.wav")):
        one, everything = figures[title]
        assert (one["of"], everything["of"]) == (name, "all")
        assert one["questions"] == sum(one[kind] for kind in KINDS) == 12
    assert "noise.png" in capsys.readouterr().out


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"--images: .*broken\.png"):
        main(["bench", "abstain", "--images", str(tmp_path), "--seconds", "4"])
