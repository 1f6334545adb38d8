"""A video file stands for a bag: real mp4 files, written here, read back as observations."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from salmonn_node.cli import main
from salmonn_node.evaluation.import_choice import VIDEO_START_NS
from salmonn_node.evaluation.questions import Expected, QuestionRecord
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.replay.video_stream import VideoStream, is_video
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, Frame

RATE = 22_050


def write_video(path: Path, seconds: int = 4, sound: bool = True) -> Path:
    """Brightness tells the second; the sound is a sine of 440 Hz."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("aac", rate=RATE) if sound else None
        for i in range(10 * seconds):
            image = np.full((64, 96, 3), 40 + 40 * (i // 10), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            wave = np.sin(2 * np.pi * 440 * np.arange(RATE * seconds) / RATE).astype(np.float32) * 0.5
            piece = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            piece.sample_rate = RATE
            container.mux(audio.encode(piece))
            container.mux(audio.encode())
    return path


def test_frames_and_sound_come_in_order_of_time(tmp_path):
    stream = VideoStream(write_video(tmp_path / "clip.mp4"))
    assert stream.has_audio
    assert stream.duration_s == pytest.approx(4, abs=0.3)
    items = list(stream)
    times = [t for t, _ in items]
    assert times == sorted(times)
    frames = [o for _, o in items if isinstance(o, Frame)]
    chunks = [o for _, o in items if isinstance(o, AudioChunk)]
    assert frames[0].stamp_ns == VIDEO_START_NS
    assert frames[0].image.shape == (64, 96, 3)
    late = next(f for f in frames if f.stamp_ns >= VIDEO_START_NS + 3 * SECOND_NS)
    assert int(late.image.mean()) - int(frames[0].image.mean()) > 60
    samples = np.concatenate([c.samples for c in chunks])
    assert {c.rate_hz for c in chunks} == {RATE}
    assert len(samples) / RATE == pytest.approx(4, abs=0.2)
    assert 0.3 < np.abs(samples).max() <= 1.0


def test_a_video_without_sound_is_replayed_with_pictures_alone(tmp_path):
    path = write_video(tmp_path / "mute.mp4", sound=False)
    assert is_video(path)
    question = QuestionRecord(
        id="q", ask_ns=VIDEO_START_NS + 3 * SECOND_NS, text="Was it light?", expected=Expected(text="yes")
    )
    result = run_job(Job(path, (question,), JobSettings(), tmp_path / "out"))
    assert not result.error
    assert 4 <= result.facts["frames"] <= 5
    assert "no sound in this video: only pictures are replayed" in result.warnings
    video = result.account["video"]
    assert video["promised"] == video["read"] > video["used"] > 0
    assert len(result.answers) == 1


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"cannot open .*clip\.mp4 as a video"):
        VideoStream(path)


def test_a_video_and_a_wav_become_a_bag(tmp_path, capsys):
    video = write_video(tmp_path / "clip.mp4", sound=False)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(np.full((8_000, 2), 8_192, "<i2").tobytes())
    made = ["bag", "make", str(video), str(tmp_path / "bag"), "--wav", str(tmp_path / "sound.wav")]
    assert main(made) == 0
    with BagStream(tmp_path / "bag") as bag:
        items = [o for _, o in bag]
    chunks = [o for o in items if isinstance(o, AudioChunk)]
    assert sum(len(c.samples) for c in chunks) == 8_000
    assert np.abs(chunks[0].samples - 0.25).max() < 1e-3
    assert sum(not isinstance(o, AudioChunk) for o in items) >= 10
    (tmp_path / "sound.wav").write_bytes(b"no sound")
    assert main([*made[:3], str(tmp_path / "other"), *made[4:]]) == 2
    assert "cannot be read as a WAV file" in capsys.readouterr().err
