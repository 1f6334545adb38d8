"""Predicts how long an answer takes on this machine: timed before the first question, corrected by every answer."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from salmonn_node.stream.answers import AnswerType
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

if TYPE_CHECKING:
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

NEWEST_WEIGHT = 0.3  # weight of the newest answer in a running mean
FIRST_DEVIATION = 0.25  # relative deviation of the timed curve before any answer has confirmed it
FILL_S = 0.5  # the longer of the two timed prompts holds what can be observed in this time
TIMED_QUESTION = "what is there?"
TIMED_SHAPE = (360, 640, 3)


@dataclass(frozen=True)
class ExpectedTime:
    """Expected duration of an answer in seconds: the mean, and the mean deviation from it."""

    mean_s: float = 0.0
    deviation_s: float = 0.0


@dataclass
class _Ratio:
    """Running mean of measured over timed seconds, with its mean deviation. The timing counts as one answer."""

    mean: float = 1.0
    deviation: float = FIRST_DEVIATION
    answers: int = 1

    def take(self, ratio: float) -> None:
        self.answers += 1
        weight = max(NEWEST_WEIGHT, 1.0 / self.answers)
        self.deviation += weight * (abs(ratio - self.mean) - self.deviation)
        self.mean += weight * (ratio - self.mean)


class AnswerTimeModel:
    """Predicts the duration of an answer from its type and the length of its prompt. Any thread may use it.

    The timed answers give a curve of seconds over prompt length, with straight lines between and beyond the points.
    Each real answer is compared with the curve. The prediction is the curve times the running mean of that ratio for
    the answer's type. A type without an answer yet uses the ratio of the last answer.

    Args:
        timed: (rows of the prompt, seconds) of at least one answer, from `timed_answers`.

    Raises:
        ValueError: `timed` is empty, or a length or time is not positive.
    """

    def __init__(self, timed: Sequence[tuple[int, float]]) -> None:
        points = sorted(dict(timed).items())
        if not points or min(min(point) for point in points) <= 0:
            raise ValueError(f"timed: expected positive lengths and seconds, got {list(timed)}")
        self._rows = [rows for rows, _ in points]
        self._seconds = [seconds for _, seconds in points]
        self._ratios: dict[AnswerType, _Ratio] = {}
        self._last = _Ratio()
        self._lock = threading.Lock()

    def expected(self, kind: AnswerType, rows: int) -> ExpectedTime:
        """Expected duration of an answer of type `kind` whose prompt has about `rows` rows."""
        with self._lock:
            ratio = self._ratios.get(kind, self._last)
            curve_s = self._curve(rows)
            return ExpectedTime(curve_s * ratio.mean, curve_s * ratio.deviation)

    def learn(self, kind: AnswerType, rows: int, seconds: float, *, whole: bool = True) -> None:
        """Learn from the duration of an answer. If it was cut short (`whole` False), the duration is a lower bound."""
        with self._lock:
            ratio = self._ratios.get(kind)
            found = seconds / self._curve(rows)
            if not whole and found <= (ratio or self._last).mean:
                return
            if ratio is None:
                ratio = self._ratios[kind] = _Ratio(self._last.mean, self._last.deviation)
            ratio.take(found)
            self._last = ratio

    def _curve(self, rows: int) -> float:
        """Seconds of the timed question at this length, never less than those of the shortest timed prompt."""
        at, seconds = self._rows, self._seconds
        if len(at) == 1 or rows <= at[0]:
            return seconds[0]
        right = min(bisect.bisect_left(at, rows), len(at) - 1)
        slope = (seconds[right] - seconds[right - 1]) / (at[right] - at[right - 1])
        return seconds[right - 1] + max(0.0, slope) * (rows - at[right - 1])


def timed_answers(model: VideoSalmonnS, max_new_tokens: int) -> list[tuple[int, float]]:
    """Time two answers from a memory of noise: one with one temporal patch, one with all that FILL_S lets in.

    A first question warms the network up and is not counted.

    Args:
        model: the network as it will be asked, with its compiled encoders.
        max_new_tokens: limit of an answer's text.

    Returns:
        (rows, seconds) of each timed view and answer; rows as `prompt_rows` counts them.
    """
    memory = model.new_memory()
    noise = np.random.default_rng(0)
    image = noise.integers(0, 255, TIMED_SHAPE, np.uint8)
    budget = sum(config.budget for config in memory.configs)

    def observe(second: int) -> None:
        stamp_ns = (1 + second) * SECOND_NS
        model.observe_frame(memory, Frame(stamp_ns, "timing", image))
        samples = noise.normal(0.0, 0.1, 16_000).astype(np.float32)
        model.observe_audio(memory, AudioSpan(stamp_ns, "timing_sound", samples))

    def ask(tokens: int) -> tuple[int, float]:
        began = time.monotonic()
        view = model.view(memory)
        model.answer(TIMED_QUESTION, view, max_new_tokens=tokens)
        return prompt_rows(len(view), TIMED_QUESTION), time.monotonic() - began

    for second in range(2):
        observe(second)
    ask(min(2, max_new_tokens))
    timed = [ask(max_new_tokens)]
    second, until = 2, time.monotonic() + FILL_S
    while time.monotonic() < until and memory.counters["visual_tokens"] + memory.counters["audio_tokens"] < budget:
        observe(second)
        second += 1
    return [*timed, ask(max_new_tokens)]


def prompt_rows(tokens: int, text: str) -> int:
    """Approximate number of rows of a prompt: the tokens of the memory, and one row per four bytes of text."""
    return tokens + len(text.encode()) // 4
