"""Work that takes long says so where no bar can be shown."""

from __future__ import annotations

from pathlib import Path

from salmonn_node.replay.job import Job, JobSettings
from salmonn_node.replay.progress_line import ProgressLine
from salmonn_node.replay.runner import Progress

JOB = Job(Path("walk"), (), JobSettings(), Path("out"))


def test_a_line_each_ten_seconds_of_work_with_stream_time_speed_and_time_left() -> None:
    written: list[str] = []
    now = 0.0
    line = ProgressLine(written.append, clock=lambda: now)
    for tenth in range(0, 351):
        now = tenth / 10
        line(JOB, Progress(12 * now, now, tenth, 0, 0), 1_200.0)
    assert written == [
        "walk (default): 120 of 1200 s at 12.0x real time, 1 min 30 s left, 0 of 0 questions answered",
        "walk (default): 240 of 1200 s at 12.0x real time, 1 min 20 s left, 0 of 0 questions answered",
        "walk (default): 360 of 1200 s at 12.0x real time, 1 min 10 s left, 0 of 0 questions answered",
    ]


def test_before_anything_was_read_there_is_no_speed() -> None:
    written: list[str] = []
    line = ProgressLine(written.append, period_s=0.0, clock=lambda: 1.0)
    line(JOB, Progress(0.0, 3.0, 0, 0, 0), 0.0)
    assert written == ["walk (default): 0 of 0 s, 0 of 0 questions answered"]
