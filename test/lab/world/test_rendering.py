"""The rendered world: pictures, pixels, speech, bags and pages; needs MuJoCo, OSMesa and espeak-ng."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from salmonn_node import cli
from salmonn_node.evaluation.questions import read_questions
from salmonn_node.evaluation.scores import judge
from salmonn_node.lab.world import demo
from salmonn_node.lab.world.objects import COLOURS
from salmonn_node.lab.world.oracle import Oracle
from salmonn_node.lab.world.shards import make_shard, read_shard, write_shard
from salmonn_node.lab.world.sounds import SPOKEN
from salmonn_node.lab.world.stream import World, stream
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.lab.world.truth_file import truth_from_json, truth_to_json
from salmonn_node.live import demo_recording
from salmonn_node.stream.observations import SECOND_NS

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        arguments = ["world", "make", "--seed", "100021", "--minutes", "0.6", "--dense", "--output"]
        assert cli.main([*arguments, str(tmp_path / name)]) == 0
    assert f"{tmp_path}/b/questions.jsonl --ground-z 0.5" in capsys.readouterr().out
    first = hashes(tmp_path / "a")
    assert first == hashes(tmp_path / "b")
    assert {"bag/bag.mcap", "bag/metadata.yaml", "questions.jsonl", "events.jsonl", "truth.json"} == set(first)
    truth = truth_from_json((tmp_path / "a" / "truth.json").read_text())
    oracle = Oracle(truth)
    records = read_questions(tmp_path / "a" / "questions.jsonl")
    assert records
    assert all(judge(r, oracle(r)).correct for r in records)
    assert cli.main(["world", "make", "--seed", "1", "--output", str(tmp_path / "a")]) == 1
    assert "exists" in capsys.readouterr().err


def test_a_bag_reads_back_as_the_stream(tmp_path: Path) -> None:
    from salmonn_node.lab.world.bag import write_bag
    from salmonn_node.replay.bag_stream import BagStream
    from salmonn_node.stream.observations import AudioChunk, EncodedFrame, Pose

    world = World(100_031, 12, dense=True)
    write_bag(tmp_path / "bag", world, fps=2)
    frames, samples, poses = [], [], []
    with BagStream(tmp_path / "bag", pose="/pose") as bag:
        for _, item in bag:
            if isinstance(item, EncodedFrame):
                frames.append(item)
            elif isinstance(item, AudioChunk):
                samples.append(item.samples[:, 0])
            elif isinstance(item, Pose):
                poses.append(item)
        assert not bag.report.dropped
    assert len(frames) == 24
    expected = np.concatenate([world.microphone.second(k) for k in range(12)])
    np.testing.assert_allclose(np.concatenate(samples), expected, atol=1e-4)
    assert len(poses) == 60
    errors = [np.hypot(*(p.position[:2] - _true(world, p.stamp_ns))) for p in poses]
    assert 0.01 < np.mean(errors) < 0.1
    assert {p.frame_id for p in poses} == {"map"}


def _true(world: World, stamp_ns: int) -> tuple[float, float]:
    pose = world.patrol.pose_at((stamp_ns - START_NS) / SECOND_NS)
    return pose.x, pose.y


def test_what_the_pixels_say_is_in_the_picture() -> None:
    world = World(100_003, 120, dense=True)
    things = checked = 0
    with world.camera(320, 180) as camera:
        for k in range(world.seconds):
            moment = world.moment(k, camera.regions(float(k)))
            for seen in moment.seen:
                things += 1
                standing = world.schedule.people_at if seen.thing.shape == "person" else world.schedule.on_stand
                assert standing[seen.spot].at(float(k)) == seen.thing
                if seen.clear and seen.thing.shape in ("ball", "cube", "cross", "pillar"):
                    left, top, right, bottom = seen.box
                    image = camera.picture(float(k))
                    x, y = int((left + right) / 2 * 320), int((top + bottom) / 2 * 180)
                    pixel = image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(0)
                    unit = {c: np.array(v) / np.linalg.norm(v) for c, v in COLOURS.items()}
                    near = max(unit, key=lambda c: float(unit[c] @ pixel))
                    checked += near == seen.thing.colour
                    things += 0
    assert things > 50
    assert checked > 20


def test_streams_differ_by_seed_and_not_by_run() -> None:
    one, again = list(stream(100_004, 0.1, dense=True)), list(stream(100_004, 0.1, dense=True))
    other = list(stream(100_005, 0.1, dense=True))
    assert len(one) == 6
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
        np.testing.assert_array_equal(a.audio, b.audio)
        assert a.moment == b.moment
    assert any((a.frames != c.frames).any() for a, c in zip(one, other, strict=True))
    assert one[0].frames.shape == (1, 72, 128, 3)


def test_shards_round_trip(tmp_path: Path) -> None:
    shard = make_shard(World(9, 8), 96, 54)
    for name in ("a", "b"):
        write_shard(tmp_path / name, shard)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = read_shard(tmp_path / "a")
    np.testing.assert_array_equal(back.frames, shard.frames)
    np.testing.assert_array_equal(back.audio, shard.audio)
    assert back.truth == shard.truth
    assert back.sound(0).dtype == np.float32


def test_speech_is_the_same_and_differs_by_word_and_voice() -> None:
    from salmonn_node.lab.world.speech import VOICES, say

    waves = {}
    for voice in VOICES:
        for word in SPOKEN.values():
            wave = say(word, voice)
            assert 0.15 < len(wave) / 16_000 < 1.2, (word, voice)
            waves[word, voice] = wave.tobytes()
    assert len(set(waves.values())) == len(waves)
    faster = say("three", VOICES[0], 1.08)
    assert len(faster) == pytest.approx(len(say("three", VOICES[0])) / 1.08, abs=2)
    with pytest.raises(ValueError, match="no 'three' in voice"):
        say("three", "xx-none")
    # In a process of its own, after other words.
    code = (
        "import hashlib; from salmonn_node.lab.world.speech import VOICES, say; say('nine', VOICES[3]);"
        "print(hashlib.sha256(say('three', VOICES[0]).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(waves["three", VOICES[0]]).hexdigest()


def test_sound_has_the_power_that_the_log_says() -> None:
    world = World(100_006, 240, dense=True)
    measured = []
    for heard in world.microphone.heard:
        if heard.clear and heard.end_s - heard.start_s > 3:
            middle = int((heard.start_s + heard.end_s) / 2)
            power = np.mean(world.microphone.second(middle) ** 2) / world.microphone.noise_rms**2
            measured.append(10 * np.log10(power - 1) - heard.snr_db)
    assert measured
    assert np.abs(measured).max() < 3


def test_the_demo_can_be_made_anew(tmp_path: Path) -> None:
    records = demo.write_demo(tmp_path / "demo")
    committed = read_questions(demo_recording.QUESTIONS)
    assert [r.text for r in records] == [r.text for r in committed]
    made = truth_from_json((tmp_path / "demo" / "truth.json").read_text())
    old = truth_from_json(demo_recording.TRUTH.read_text())
    assert made.sounds == old.sounds
    assert [m.pose for m in made.moments] == [m.pose for m in old.moments]
    assert truth_to_json(made)


def test_sheet_and_page_are_written(tmp_path: Path) -> None:
    import cv2

    sheet = tmp_path / "s.png"
    assert (
        cli.main(["world", "look", "--seed", "100007", "--minutes", "2", "--tiles", "8", "--output", str(sheet)]) == 0
    )
    image = cv2.imread(str(sheet))
    assert image.shape[1] > 1000
    page = tmp_path / "p.html"
    arguments = ["world", "check", "--seed", "100007", "--minutes", "2", "--dense", "--output", str(page)]
    assert cli.main(arguments) == 0
    text = page.read_text()
    assert text.count("<section>") == 20
    assert "http" not in text
