"""The answerer: turns a question into a typed answer with evidence by its deadline. An error is an answer too."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from salmonn_node.answering.abstention import Signs, signs_of
from salmonn_node.answering.answer_time import prompt_rows
from salmonn_node.answering.confidence import Calibration, read_calibration
from salmonn_node.answering.event_answers import EventAnswers
from salmonn_node.answering.evidence import MASS, evidence_of, frame_period_ns
from salmonn_node.answering.grammar import PATTERNS, TokenGrammar, pieces_of
from salmonn_node.answering.grounding import Grounding
from salmonn_node.answering.known_words import known_share
from salmonn_node.answering.outcome import outcome_of, rival
from salmonn_node.answering.request import plain, refusal
from salmonn_node.answering.source import MemorySource
from salmonn_node.answering.typed import YES_NO, about_observer, kind_of, no_object, options_of, typed
from salmonn_node.messages.base import frame_name
from salmonn_node.model.generation import Generation, WindowScores
from salmonn_node.model.scene_view import SceneView
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome, Question
from salmonn_node.stream.observations import SECOND_NS, Pose

if TYPE_CHECKING:
    from salmonn_node.answering.server_reader import ServerReader

UNTRAINED = "untrained weights"
NOT_OBSERVED = "not observed"
# To find a rival of the strongest evidence, look at this many candidates, or at this share of the weight.
CANDIDATES, RIVAL_MASS = 3, 0.9
# Work that may be left out is done if so many times its expected duration is left before the deadline.
SPARE = 2.0
# Without a calibration, an answer is NOT_OBSERVED when the network gives "the video shows it" a lower probability.
SHOWN_BELOW = 0.5
STAGES = ("waiting", "reading", "generating")

log = logging.getLogger(__name__)
Transform = Callable[[Pose, str], Pose | None]


class _StoppedError(Exception):
    """The question ends without an answer; `code` says why."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _check_heads(calibration: Calibration, text: Mapping[str, Any]) -> None:
    """Raise ValueError if a calibration names an attention head that the network does not have."""
    layers, heads = text["num_hidden_layers"], text["num_attention_heads"]
    for layer, head in calibration.heads:
        if layer >= layers or head >= heads:
            raise ValueError(
                f"calibration: heads: layer {layer}, head {head}; the network has {layers} layers of {heads} heads"
            )


class Answerer:
    """Answers questions about an observer's memory in the caller's thread. Only one thread at a time may ask.

    The answerer checks the deadline and `cancel` between two tokens. If you must reply to the millisecond, or serve
    many callers at once, ask through `answering/question_queue.py`.

    Attributes:
        spare_s: seconds of the last answer that went into work for which there was time to spare. With less time, the
            answer is the same, but its evidence may be less exact.
        signs: what the last answer tells about whether the memory shows it, see `answering/abstention.py`. None for a
            network with an evidence head, and for types whose "no" and zero are answers of their own.
        scored_windows: set it to get `windows` of so many windows with each answer. It costs time.
        windows: figures of the windows of the last answer. None for a network with an evidence head.

    Args:
        observer: gives views of the memory.
        max_new_tokens: most tokens of text.
        max_evidence: most pieces of evidence, unless the question sets a number.
        transform: returns a pose in another frame, or None when it cannot; by default that of `grounding`.
        grounding: frames, cameras and mounts; without it, answers give no object positions.
        calibration: confidences and thresholds; by default the checkpoint's calibration file, if it has one.
        server: answers in the network's place; None lets the network answer.

    Raises:
        ValueError: the checkpoint's calibration file is malformed or belongs to other weights.
    """

    def __init__(
        self,
        observer: MemorySource,
        *,
        max_new_tokens: int = 48,
        max_evidence: int = 3,
        transform: Transform | None = None,
        grounding: Grounding | None = None,
        calibration: Calibration | None = None,
        server: ServerReader | None = None,
    ) -> None:
        self.server = server
        self.observer = observer
        self.max_new_tokens = max_new_tokens
        self.max_evidence = max_evidence
        self.grounding = grounding
        self.transform = grounding.transform if transform is None and grounding is not None else transform
        checkpoint = observer.model.checkpoint
        if calibration is None and checkpoint.calibration is not None:
            calibration = read_calibration(checkpoint.calibration, checkpoint.id)
        if calibration is not None:
            _check_heads(calibration, observer.model.config.text)
        self.calibration = calibration
        tokenizer = observer.model.tokenizer
        pieces, end = pieces_of(tokenizer, observer.model.config.text["vocab_size"]), tokenizer.specials.im_end
        self.spare_s = 0.0
        self.signs: Signs | None = None
        self.scored_windows = 0
        self.windows: WindowScores | None = None
        parts = observer.model.event_parts if checkpoint.trained else None
        self.events = None if parts is None else EventAnswers(observer.model, parts)
        self._grammars = {kind: TokenGrammar(kind, pieces, end) for kind in PATTERNS}

    def ask(
        self,
        question: Question,
        *,
        deadline: float,
        cancel: threading.Event | None = None,
        on_text: Callable[[str], None] | None = None,
        on_stage: Callable[[str], None] | None = None,
        view: SceneView | None = None,
        hurried: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Answer a question by `deadline` (time.monotonic). Never raises: an error is an Answer with an error code.

        Args:
            question: the question.
            deadline: once it has passed, generation stops at the next token and the answer is TIMEOUT.
            cancel: set it to stop the work.
            on_text: called with each new piece of the text.
            on_stage: called with the name of each stage in STAGES as it begins.
            view: the view to read, from `wait_for_view`; by default, the answerer waits for it.
            hurried: whether another question waits. Work that may be left out then is.
        """
        self.spare_s, self.signs, self.windows = 0.0, None, None
        received = time.monotonic()
        cancel = cancel or threading.Event()
        stage = on_stage or (lambda _: None)
        try:
            answer = self._answer(question, view, deadline, cancel, on_text, stage, hurried)
        except _StoppedError as error:
            answer = self._failed(error.code, str(error))
        except Exception as error:
            log.exception("a question failed")
            answer = self._failed(ErrorCode.MODEL_ERROR, f"{type(error).__name__}: {error}")
        return replace(answer, latency_s=time.monotonic() - received)

    def wait_for_view(
        self, question: Question, *, deadline: float, cancel: threading.Event | None = None
    ) -> SceneView | None:
        """Wait until all that the question asks about is observed; returns the view, None at `deadline` or cancel."""
        return self.observer.wait_for_view(
            question.after_ns, question.before_ns, question.sources, deadline=deadline, cancel=cancel
        )

    def ahead(self, question: Question) -> bool:
        """Whether the question asks about something not observed yet, so that `wait_for_view` would wait."""
        return question.before_ns >= self.observer.newest_ns if question.before_ns else False

    def size(self, question: Question) -> tuple[AnswerType, int]:
        """Type of the answer and approximate number of prompt rows, to predict the answer's duration.

        It is quick: it takes no lock and reads no tokens.
        """
        memory, start_ns, newest_ns = self.observer.memory, self.observer.start_ns, self.observer.newest_ns
        kept = sum(
            min(memory.counters[f"{modality}_tokens"], config.budget)
            for modality, config in zip(("visual", "audio"), memory.configs, strict=True)
        )
        asked_ns = min(question.before_ns or newest_ns, newest_ns) - max(question.after_ns, start_ns)
        share = min(1.0, max(0.0, asked_ns / (newest_ns - start_ns))) if newest_ns > start_ns else 1.0
        return kind_of(question), prompt_rows(round(share * kept), "\n".join((question.text, *question.choices)))

    def _answer(
        self,
        question: Question,
        view: SceneView | None,
        deadline: float,
        cancel: threading.Event,
        on_text: Callable[[str], None] | None,
        stage: Callable[[str], None],
        hurried: Callable[[], bool],
    ) -> Answer:
        def spare(seconds: float) -> bool:
            return not hurried() and time.monotonic() + SPARE * seconds < deadline

        def check(late: str) -> None:
            if cancel.is_set():
                raise _StoppedError(ErrorCode.CANCELED, "canceled by the caller")
            if time.monotonic() >= deadline:
                raise _StoppedError(ErrorCode.TIMEOUT, late)

        reason = refusal(question, self.observer.source_names)
        if reason:
            raise _StoppedError(ErrorCode.INVALID_REQUEST, reason)
        stage("waiting")
        if view is None:
            view = self.wait_for_view(question, deadline=deadline, cancel=cancel)
        check("the stream had not reached the question's `before` by the deadline")
        if view is None:
            raise _StoppedError(ErrorCode.CANCELED, "the observer was closed")
        if self.server is None:
            stop = lambda: cancel.is_set() or time.monotonic() >= deadline  # noqa: E731
            answer = self._work(question, view, stop, on_text, stage, spare)
        else:
            answer = self._by_server(self.server, question, deadline, cancel, stage)
        check("the deadline passed before the answer was complete")
        return answer

    def _work(
        self,
        question: Question,
        view: SceneView,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None,
        stage: Callable[[str], None],
        spare: Callable[[float], bool],
    ) -> Answer:
        stage("reading")
        observer = self.observer
        if len(view) == 0:
            raise _StoppedError(
                ErrorCode.EMPTY_MEMORY, "nothing was observed between the question's `after` and `before`"
            )
        stage("generating")
        kind = kind_of(question)
        limit = max(1, question.max_evidence or self.max_evidence)
        known = None if self.events is None else self._from_events(self.events, question, kind, view, limit)
        if known is not None:
            if on_text is not None:
                on_text(known.text)
            return self._in_target_frame(question, known)
        wanted: dict[str, Any] = {}
        chat = observer.model.config.chat
        if options := options_of(kind, question, (chat.yes, chat.no)):
            wanted["options"] = options
        # An evidence head points at the time. Without one, the network must write it.
        if kind in self._grammars and not (kind == AnswerType.TIME and observer.model.config.evidence_head):
            wanted["grammar"] = self._grammars[kind]
        if self.calibration is not None and self.calibration.heads:
            wanted["heads"] = self.calibration.heads
        if self.scored_windows:
            wanted["scored_windows"] = self.scored_windows
        # For "no" and zero, no further check is needed. For other types, also ask whether the video shows the thing.
        whether = chat.asks_whether_shown(plain(question.text))
        if whether and kind not in (AnswerType.BINARY, AnswerType.COUNT):
            wanted["shown"] = whether
        generation = observer.model.answer(
            chat.asked(plain(question.text), kind.name, [plain(choice) for choice in question.choices]),
            view,
            max_new_tokens=self.max_new_tokens,
            should_stop=should_stop,
            on_text=on_text,
            spare=spare,
            **wanted,
        )
        self.spare_s, self.windows = generation.spare_s, generation.windows
        if generation.stopped:
            return self._blank()  # the caller says whether it was the deadline or a cancel
        given = (generation.pointer, generation.grounded, generation.attention)
        weights = next(found for found in given if found is not None)
        whole = kind == AnswerType.DURATION
        trained = observer.model.checkpoint.trained
        ambiguity = self.calibration is not None and self.calibration.ambiguous_ratio is not None
        evidence = evidence_of(
            np.asarray(weights.detach().float().cpu(), np.float64),
            view,
            observer.evidence,
            limit=max(limit, CANDIDATES) if ambiguity else limit,
            pictures=question.want_thumbnails,
            picture_size=observer.picture_size,
            after_ns=question.after_ns,
            before_ns=question.before_ns,
            mass=RIVAL_MASS if ambiguity else MASS,
            matching=generation.matching.numpy() if whole and generation.matching is not None else None,
        )
        outcome = outcome_of(kind, evidence, generation.null_weight, trained=trained, calibration=self.calibration)
        unknown = chat.unknown(generation.text)
        unknown |= self.calibration is not None and generation.text.strip() == self.calibration.unknown != ""
        self.signs = signs_of(generation, unknown)
        if unknown or self._not_shown(generation):
            outcome = Outcome.NOT_OBSERVED
        if outcome == Outcome.AMBIGUOUS and self.calibration is not None:
            other = rival(kind, evidence, self.calibration) or 1
            evidence = (evidence[0], evidence[other], *evidence[1:other], *evidence[other + 1 :])
        if outcome == Outcome.NOT_OBSERVED:
            # Give a planner nothing to act on by mistake: no typed field, and no text that sounds like an answer.
            answer = replace(self._blank(), outcome=outcome, answer_type=kind, text=NOT_OBSERVED)
        else:
            answer = replace(self._blank(), outcome=outcome, text=generation.text.strip(), evidence=evidence[:limit])
            object_pose: Callable[[Evidence], Pose | None] = no_object
            if self.grounding is not None and not about_observer(question.text):
                object_pose = self.grounding.object_pose
            choices = question.choices or YES_NO
            found = typed(kind, answer, generation, object_pose, frame_period_ns(view), choices)
            answer = found.answer
            if self.calibration is not None:
                checked = self.calibration.known_words is not None
                share = known_share(observer.model.tokenizer, question.text) if checked else 1.0
                answer = replace(answer, confidence=self.calibration.confidence(kind, found.probability, share))
        if not trained:
            answer = replace(answer, text=f"[{UNTRAINED}] {answer.text}")
        return self._in_target_frame(question, answer)

    def _from_events(
        self, events: EventAnswers, question: Question, kind: AnswerType, view: SceneView, limit: int
    ) -> Answer | None:
        observer = self.observer
        return events.answer(
            question, kind, view, self._blank(), observer.evidence, limit=limit, grounding=self.grounding,
            picture_size=observer.picture_size, calibration=self.calibration,
        )  # fmt: skip

    def _not_shown(self, generation: Generation) -> bool:
        """Whether a network without an evidence head says that the memory does not show what was asked about.

        Some networks say no to nearly everything. So without a calibration, "no" counts only where it is likelier than
        with nothing to see.
        """
        known, shown = self.calibration, generation.shown
        if known is not None and known.observed is not None and self.signs is not None:
            return known.observed.probability(self.signs) < known.observed.least
        if shown is None:
            return False
        if known is not None and known.shown_below is not None:
            return shown < known.shown_below
        blind = generation.shown_blind
        return shown < SHOWN_BELOW and (blind is None or shown < blind)

    def _by_server(
        self,
        server: ServerReader,
        question: Question,
        deadline: float,
        cancel: threading.Event,
        stage: Callable[[str], None],
    ) -> Answer:
        from salmonn_node.answering.server_client import ServerError, StoppedError
        from salmonn_node.answering.server_reader import EmptyLogError

        limit = max(1, question.max_evidence or self.max_evidence)
        limits: dict[str, Any] = {"max_evidence": limit, "deadline": deadline, "cancel": cancel, "on_stage": stage}
        try:
            answer = server.answer(question, self._blank(), **limits)
        except EmptyLogError:
            raise _StoppedError(
                ErrorCode.EMPTY_MEMORY, "the log holds nothing between the question's `after` and `before`"
            ) from None
        except ServerError as error:
            raise _StoppedError(ErrorCode.MODEL_ERROR, f"server: {error}") from None
        except StoppedError:
            return self._blank()  # the caller says whether it was the deadline or a cancel
        return self._in_target_frame(question, answer)

    def _in_target_frame(self, question: Question, answer: Answer) -> Answer:
        pose, target = answer.pose, frame_name(question.target_frame)
        if pose is None or not target or pose.frame_id == target:
            return answer
        moved = self.transform(pose, target) if self.transform is not None else None
        if moved is None:
            when = f"at the evidence's stamp, {pose.stamp_ns / SECOND_NS:.3f} s"
            raise _StoppedError(
                ErrorCode.TRANSFORM_ERROR, f"target_frame: no transform from {pose.frame_id} to {target} {when}"
            )
        return replace(answer, pose=moved, map_id=moved.map_id)

    def _blank(self) -> Answer:
        observer = self.observer
        return Answer(
            memory_id=observer.memory_id, memory_start_ns=observer.start_ns, last_observation_ns=observer.newest_ns
        )

    def _failed(self, code: ErrorCode, reason: str) -> Answer:
        return replace(self._blank(), error_code=code, error_msg=reason)
