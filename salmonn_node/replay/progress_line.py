"""How far a replay is, as a plain line now and then, for logs and pipes that cannot show a bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from salmonn_node.replay.job import Job
from salmonn_node.replay.runner import Progress

PERIOD_S = 10.0


class ProgressLine:
    """Writes a line for a job's progress, at most one in each `period_s` seconds of work.

    Args:
        write: takes the line.
        period_s: seconds between two lines.
        clock: seconds of a clock that never steps.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._period_s, self._clock = write, period_s, clock
        self._last_s = clock()

    def __call__(self, job: Job, progress: Progress, duration_s: float) -> None:
        """Write the line when it is due."""
        now = self._clock()
        if now - self._last_s >= self._period_s:
            self._last_s = now
            self._write(progress_line(job, progress, duration_s))


def progress_line(job: Job, progress: Progress, duration_s: float) -> str:
    """Stream time, speed and time left of a job in words."""
    answered = f"{progress.answered} of {len(job.questions)} questions answered"
    done = f"{job.name} ({job.settings.arm}): {progress.stream_s:.0f} of {duration_s:.0f} s"
    if not progress.speed > 0 or math.isinf(progress.speed):
        return f"{done}, {answered}"
    left_s = max(0.0, duration_s - progress.stream_s) / progress.speed
    minutes, seconds = divmod(round(left_s), 60)
    return f"{done} at {progress.speed:.1f}x real time, {minutes} min {seconds:02d} s left, {answered}"
