"""How long an answer takes on this machine: timed before the first question, corrected by every answer."""

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

NEWEST_WEIGHT = 0.3  # of the newest answer in a running mean
FIRST_DEVIATION = 0.25  # of the timed curve, relative, before any answer has confirmed it
FILL_S = 0.5  # the longer of the two prompts that are timed is what can be observed in so much time
TIMED_QUESTION = "what is there?"
TIMED_SHAPE = (360, 640, 3)


@dataclass(frozen=True)
class Expected:
    """Seconds that an answer takes: mean, and mean deviation from it."""

    mean_s: float = 0.0
    deviation_s: float = 0.0


@dataclass
class _Ratio:
    """Running mean of measured over timed seconds, with its mean deviation; what was timed counts as one answer."""

    mean: float = 1.0
    deviation: float = FIRST_DEVIATION
    answers: int = 1

    def take(self, ratio: float) -> None:
        self.answers += 1
        weight = max(NEWEST_WEIGHT, 1.0 / self.answers)
        self.deviation += weight * (abs(ratio - self.mean) - self.deviation)
        self.mean += weight * (ratio - self.mean)


class AnswerTimeModel:
    """Expects the time of an answer from the length of its prompt and its type; any thread may use it.

    Seconds over prompt length are a curve through what was timed, straight between and beyond. What answers take is
    compared with the curve, for each type: the expectation is the curve times the running mean of that ratio. A type
    that has not been asked for yet is expected to behave as the last answer's did.

    Args:
        timed: (rows of the prompt, seconds) of at least one answer, as `timed_answers` gives them.

    Raises:
        ValueError: nothing was timed, or a length or time that is not positive.
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

    def expected(self, kind: AnswerType, rows: int) -> Expected:
        """What an answer of this type takes whose prompt has about so many rows."""
        with self._lock:
            ratio = self._ratios.get(kind, self._last)
            curve_s = self._curve(rows)
            return Expected(curve_s * ratio.mean, curve_s * ratio.deviation)

    def learn(self, kind: AnswerType, rows: int, seconds: float, *, whole: bool = True) -> None:
        """Note what an answer took; one that was cut short (`whole` False) tells only that it takes no less."""
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
        """Seconds of the timed question at this length; never less than a prompt of the shortest length took."""
        at, seconds = self._rows, self._seconds
        if len(at) == 1 or rows <= at[0]:
            return seconds[0]
        right = min(bisect.bisect_left(at, rows), len(at) - 1)
        slope = (seconds[right] - seconds[right - 1]) / (at[right] - at[right - 1])
        return seconds[right - 1] + max(0.0, slope) * (rows - at[right - 1])


def timed_answers(model: VideoSalmonnS, max_new_tokens: int) -> list[tuple[int, float]]:
    """Ask a memory of noise, once with one temporal patch and once with all that FILL_S lets in.

    The question that comes first on a machine pays for what is made at first use, so it is asked and not counted.

    Args:
        model: the network as it will be asked, with its compiled encoders.
        max_new_tokens: limit of an answer's text.

    Returns:
        (rows, seconds) of view and answer; rows are tokens of the memory and bytes of the question over four, as
        `prompt_rows` counts them.
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
    """About how many rows the prompt has: tokens of the memory, and four bytes of text to a token."""
    return tokens + len(text.encode()) // 4
