"""One bag through one memory: every observation in recorded order, every question at its stamp in stream time.

The observer and the answerer are those of the live node; the observer works inline, so that the result depends on the
recording alone. There are no deadlines: an answer takes as long as the machine needs.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from salmonn_node.answering.answerer import Answerer
from salmonn_node.evaluation.answer_file import Answered
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.ingest.observer import Observer
from salmonn_node.ingest.view_requests import ViewRequest
from salmonn_node.stream.answers import Answer, ErrorCode
from salmonn_node.stream.observations import SECOND_NS


@dataclass(frozen=True)
class Progress:
    """How far a replay is.

    Attributes:
        stream_s: stream time since the first observation, in seconds.
        wall_s: seconds of wall time since the start.
        observations, answered: counts so far.
        tokens: tokens in memory, of both modalities.
    """

    stream_s: float
    wall_s: float
    observations: int
    answered: int
    tokens: int

    @property
    def speed(self) -> float:
        """Multiple of real time."""
        return self.stream_s / self.wall_s if self.wall_s > 0 else math.nan


@dataclass
class ReplayRun:
    """A replay, its answers and its timings.

    Attributes:
        observer, answerer: the live node's, the observer inline.
        questions: asked in the order of `ask_ns`, ties by id.
        known: answers of an earlier, interrupted run by question id; they are not asked again.
        want_thumbnails: whether evidence carries pictures.
        on_observed: called with the recorded time of an observation when the memory has taken it in.
        on_asked: called with each question and the view that it reads, known answers included.
        before_ask: called before each question that is asked.
        answers: in the order in which they were asked.
        timings: question id -> seconds.
        answered_ns: question id -> recorded time up to which the stream had been taken in when it was answered.
        late: question id -> seconds by which it lies behind the end of the stream (asked at its end).
        interrupted: whether `should_stop` ended the run.
    """

    observer: Observer
    answerer: Answerer
    questions: Sequence[QuestionRecord]
    known: Mapping[str, Answered] = field(default_factory=dict)
    want_thumbnails: bool = False
    on_observed: Callable[[int], None] = lambda recorded_ns: None
    on_asked: Callable[[QuestionRecord, Any], None] = lambda record, view: None
    before_ask: Callable[[], object] = lambda: None
    answers: list[Answered] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    answered_ns: dict[str, int] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False
    ingest_s: float = 0.0
    start_ns: int = 0
    end_ns: int = 0

    def run(
        self,
        stream: Iterable[tuple[int, Any]],
        on_progress: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Answered]:
        """Replay `stream`, pairs of (recorded time, observation); yields each answer as it comes.

        A question reads what the live node would: the memory when all that is stamped up to it has been taken in.
        """
        waiting = deque(
            (record, self.observer.request_view(before_ns=record.ask_ns))
            for record in sorted(self.questions, key=lambda record: (record.ask_ns, record.id))
        )
        began = time.perf_counter()
        answering_s, observations, reported = 0.0, 0, 0.0
        for recorded_ns, observation in stream:
            if should_stop():
                self.interrupted = True
                break
            if not observations:
                self.start_ns = recorded_ns
            self.observer.submit(observation)
            observations += 1
            self.end_ns = max(self.end_ns, recorded_ns)
            self.on_observed(self.end_ns)
            while waiting and waiting[0][1].made:
                asked = time.perf_counter()
                yield self._ask(*waiting.popleft())
                answering_s += time.perf_counter() - asked
                on_progress(self._progress(time.perf_counter() - began, observations))
            now = time.perf_counter()
            if now - reported > 0.1:
                reported = now
                on_progress(self._progress(now - began, observations))
        if not self.interrupted:
            self.observer.finish()
        self.ingest_s = time.perf_counter() - began - answering_s
        while waiting and not self.interrupted:
            if should_stop():
                self.interrupted = True
                break
            record, request = waiting.popleft()
            if record.ask_ns > self.end_ns:
                self.late[record.id] = (record.ask_ns - self.end_ns) / SECOND_NS
            yield self._ask(record, request)
            on_progress(self._progress(time.perf_counter() - began, observations))
        on_progress(self._progress(time.perf_counter() - began, observations))

    def _progress(self, wall_s: float, observations: int) -> Progress:
        tokens = sum(self.observer.status().tokens)
        return Progress((self.end_ns - self.start_ns) / SECOND_NS, wall_s, observations, len(self.answers), tokens)

    def _ask(self, record: QuestionRecord, request: ViewRequest) -> Answered:
        answered = self.known.get(record.id)
        if answered is None:
            question = replace(record.question(), want_thumbnails=self.want_thumbnails)
            self.before_ask()
            started = time.perf_counter()
            try:
                view = request.result()
                answer = self.answerer.ask(question, deadline=math.inf, cancel=threading.Event(), view=view)
            except Exception as error:  # one broken answer must not lose the other questions' scores
                answer = Answer(error_code=ErrorCode.MODEL_ERROR, error_msg=f"{type(error).__name__}: {error}")
            self.timings[record.id] = time.perf_counter() - started
            answered = Answered(record.id, record.stream, answer)
        self.answers.append(answered)
        self.answered_ns[record.id] = self.end_ns
        with contextlib.suppress(RuntimeError):  # there was no view: the answer says why
            if (view := request.result()) is not None:
                self.on_asked(record, view)
        return answered
