"""The server as the reader: two passes. The log names events; their pictures give a typed answer with evidence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from salmonn_node.answering.server_choice import LOG, plain_choice
from salmonn_node.answering.server_client import ServerClient, ServerError, StoppedError
from salmonn_node.answering.server_evidence import ServerEvidence
from salmonn_node.answering.server_log import SentLog, asked_about, clock, cover, write_log
from salmonn_node.answering.server_prompts import (
    MOST_EVENTS,
    LookReply,
    Naming,
    ReplyError,
    answer_messages,
    line_of,
    naming_messages,
    naming_schema,
    read_naming,
    read_reply,
    repair_messages,
    reply_schema,
)
from salmonn_node.answering.source import MemorySource
from salmonn_node.answering.typed import kind_of
from salmonn_node.memory.log_entries import SIGHT, SOUND, VIEW, LogEntry
from salmonn_node.stream.answers import Answer, AnswerType, Evidence, Outcome, PoseKind, Question
from salmonn_node.stream.observations import SECOND_NS, Pose

NOT_OBSERVED = "not observed"


class EmptyLogError(Exception):
    """The log holds nothing within the question's window and sources."""


@dataclass
class ServerExchange:
    """One request to the server and what came of it.

    Attributes:
        messages: as they were sent.
        reply: the server's text, or what went wrong.
    """

    messages: list[dict[str, Any]]
    reply: str = ""


@dataclass
class _Asked:
    """A question with what its passes share."""

    question: Question
    kind: AnswerType
    deadline: float
    cancel: threading.Event
    start_ns: int
    now: str
    here: str
    limit: int
    exchanges: list[ServerExchange] = field(default_factory=list)


class ServerReader:
    """Answers from the event log through a server. Only one thread at a time may ask.

    Args:
        observer: gives the log, the evidence index and the sources.
        client: asks the server.
        object_pose: gives the position of the thing in a piece of evidence, or None.

    Attributes:
        exchanges: what was sent for the last question, for people to look at.
        shown: entries whose pictures were sent for the last question.
        counts: repairs, fallbacks and narrowed logs so far.
        busy: whether a question is being answered.
    """

    def __init__(
        self,
        observer: MemorySource,
        client: ServerClient,
        object_pose: Callable[[Evidence], Pose | None] = lambda evidence: None,
    ) -> None:
        self.observer, self.client = observer, client
        self.evidence = ServerEvidence(observer, object_pose)
        self.exchanges: list[ServerExchange] = []
        self.shown: list[LogEntry] = []
        self.counts = {"repaired": 0, "fallback": 0, "narrowed": 0}
        self.busy = False

    def answer(
        self,
        question: Question,
        blank: Answer,
        *,
        max_evidence: int,
        deadline: float,
        cancel: threading.Event,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> Answer:
        """Answer a valid question.

        Args:
            question: the question.
            blank: an answer with the memory's fields filled.
            max_evidence: most pieces of evidence.
            deadline: time.monotonic() at which to break off.
            cancel: set it to break off.
            on_stage: called with "reading" and "generating".

        Raises:
            EmptyLogError: there is nothing to send.
            ServerError: the server gave no usable reply.
            StoppedError: the deadline or a cancel came first.
        """
        self.busy = True
        try:
            return self._answer(question, blank, max_evidence, deadline, cancel, on_stage)
        finally:
            self.busy = False

    def _answer(
        self,
        question: Question,
        blank: Answer,
        max_evidence: int,
        deadline: float,
        cancel: threading.Event,
        on_stage: Callable[[str], None],
    ) -> Answer:
        on_stage("reading")
        observer = self.observer
        log = observer.memory.log
        entries = [] if log is None else asked_about(log.entries(), question, observer.memory.sources)
        if not entries:
            raise EmptyLogError
        start_ns = observer.start_ns
        end_ns = min(question.before_ns or observer.newest_ns, observer.newest_ns)
        asked = _Asked(
            question, kind_of(question), deadline, cancel, start_ns, clock(end_ns - start_ns),
            self.evidence.here(end_ns), max_evidence,
        )  # fmt: skip
        self.exchanges = asked.exchanges
        sent = write_log(
            entries,
            self.client.settings.server_log_chars,
            start_ns=start_ns,
            sources=observer.memory.sources,
            pose_of=self.evidence.pose,
            question=question.text,
        )
        self.counts["narrowed"] += bool(sent.narrowed)
        choice = self.client.settings.server_choice
        counted: list[LogEntry] = []
        if choice == LOG:
            named, counted = self._name(asked, sent)
        else:
            named = plain_choice(observer, question, self.client.settings.server_pictures, choice)
        if not named and not counted:
            return self._ended(blank, asked, sent, Outcome.NOT_OBSERVED)
        on_stage("generating")
        if counted:
            return self._counted(blank, asked, sent, counted)
        reply = self._look(asked, named)
        if not reply.observed:
            return self._ended(blank, asked, sent, Outcome.NOT_OBSERVED)
        return self._typed(blank, asked, sent, named, reply)

    # -- the two passes -----------------------------------------------------------------------------------------------

    def _name(self, asked: _Asked, sent: SentLog) -> tuple[list[LogEntry], list[LogEntry]]:
        """The entries that pass 1 names, and those that it counts. A cover where it gives no usable reply."""
        most = self.client.settings.server_pictures
        messages = naming_messages(asked.question, asked.kind, sent, most, asked.now, asked.here)
        schema = naming_schema(asked.kind, most, len(sent.entries))
        try:
            reply: Naming = self._repaired(asked, messages, schema, lambda text: read_naming(text, sent))
        except ReplyError:
            self.counts["fallback"] += 1
            return cover(list(sent.entries.values())), []
        named = [sent.entries[number] for number in dict.fromkeys(reply.events)][:most]
        counted = [sent.entries[number] for number in dict.fromkeys(reply.counted)]
        if asked.kind != AnswerType.COUNT:
            counted = []
        if not named and not counted and any(not entry.caption for entry in sent.entries.values()):
            # Lines without words cannot tell that something was not there: look at the pictures.
            self.counts["fallback"] += 1
            named = cover(list(sent.entries.values()))
        return named, counted

    def _look(self, asked: _Asked, named: Sequence[LogEntry]) -> LookReply:
        """Pass 2: the pictures of the named entries."""
        self.shown = list(named)
        shown = [
            (
                entry,
                line_of(entry, asked.start_ns) + self.evidence.place(entry),
                entry.picture.jpeg if entry.picture else b"",
            )
            for entry in named
        ]
        messages = answer_messages(asked.question, asked.kind, shown, asked.now, asked.here)
        schema = reply_schema(asked.kind, asked.question, len(named))
        try:
            reply: LookReply = self._repaired(
                asked, messages, schema, lambda text: read_reply(text, asked.kind, asked.question, len(named))
            )
        except ReplyError as error:
            raise ServerError(f"the server's reply cannot be used, also after a second try: {error}") from None
        return reply

    def _repaired(
        self, asked: _Asked, messages: list[dict[str, Any]], schema: dict[str, Any], read: Callable[[str], Any]
    ) -> Any:
        """What `read` makes of the server's reply. A reply that cannot be used is asked for once more."""
        text = self._chat(asked, messages, schema)
        try:
            return read(text)
        except ReplyError as error:
            self.counts["repaired"] += 1
            again = repair_messages(messages, text, str(error))
        return read(self._chat(asked, again, schema))

    def _chat(self, asked: _Asked, messages: list[dict[str, Any]], schema: dict[str, Any]) -> str:
        exchange = ServerExchange(messages)
        asked.exchanges.append(exchange)
        if time.monotonic() >= asked.deadline:
            raise StoppedError
        try:
            exchange.reply = self.client.chat(messages, schema, deadline=asked.deadline, cancel=asked.cancel)
        except ServerError as error:
            exchange.reply = f"error: {error}"
            raise
        return exchange.reply

    # -- the answer ---------------------------------------------------------------------------------------------------

    def _ended(self, blank: Answer, asked: _Asked, sent: SentLog, outcome: Outcome) -> Answer:
        text = NOT_OBSERVED + (f" ({sent.narrowed})" if sent.narrowed else "")
        return replace(blank, outcome=outcome, answer_type=asked.kind, text=text)

    def _counted(self, blank: Answer, asked: _Asked, sent: SentLog, counted: Sequence[LogEntry]) -> Answer:
        """COUNT from events: sights one by one, sounds by how often they began."""
        count = sum(entry.repeats if entry.what == SOUND else 1 for entry in counted)
        evidence = self._pieces(asked, counted)
        return self._told(blank, asked, sent, str(count), evidence, count=count)

    def _pieces(
        self, asked: _Asked, entries: Sequence[LogEntry], box: Sequence[float] | None = None
    ) -> tuple[Evidence, ...]:
        pieces = self.evidence.of(entries[:MOST_EVENTS], asked.question, box)
        return pieces[: asked.limit]

    def _told(
        self, blank: Answer, asked: _Asked, sent: SentLog, text: str, evidence: tuple[Evidence, ...], **fields: Any
    ) -> Answer:
        text += f" ({sent.narrowed})" if sent.narrowed else ""
        event = evidence[0].interval if evidence else None
        return replace(
            blank, outcome=Outcome.ANSWERED, answer_type=asked.kind, text=text, evidence=evidence, event=event, **fields
        )

    def _typed(
        self, blank: Answer, asked: _Asked, sent: SentLog, named: Sequence[LogEntry], reply: LookReply
    ) -> Answer:
        """The fields of the answer type; TIME and DURATION from events, POSITION from the box or the robot's pose."""
        kind = asked.kind
        chosen = [named[number - 1] for number in dict.fromkeys(reply.pictures)]
        # "No" and zero need nothing that shows them; False == 0.
        negative = kind in (AnswerType.BINARY, AnswerType.COUNT) and reply.value == 0
        if not chosen and not negative:
            # An answer that nothing shows is none.
            return self._ended(blank, asked, sent, Outcome.NOT_OBSERVED)
        # For when and how long, an event tells more than a view, which is one instant.
        if kind in (AnswerType.TIME, AnswerType.DURATION):
            chosen = sorted(chosen, key=lambda entry: entry.what == VIEW)
        evidence = self._pieces(asked, chosen, reply.box if kind == AnswerType.POSITION else None)
        text = " ".join(reply.text.split())
        if kind == AnswerType.BINARY:
            return self._told(blank, asked, sent, "yes" if reply.value else "no", evidence, binary=bool(reply.value))
        if kind == AnswerType.CHOICE:
            index = asked.question.choices.index(str(reply.value))
            return self._told(blank, asked, sent, str(reply.value), evidence, choice_index=index)
        if kind == AnswerType.COUNT:
            count = int(reply.value or 0)
            return self._told(blank, asked, sent, text or str(count), evidence, count=count)
        if kind == AnswerType.DURATION:
            span_ns = chosen[0].last_ns - chosen[0].first_ns
            if chosen[0].what == SIGHT:
                span_ns += self.evidence.frame_ns(chosen[0])
            seconds = span_ns / SECOND_NS
            return self._told(blank, asked, sent, f"{seconds:.0f} seconds", evidence, duration_s=seconds)
        if kind == AnswerType.TIME:
            seconds = (chosen[0].first_ns - blank.memory_start_ns) / SECOND_NS
            text = f"{text} {seconds:.0f} seconds after the start".strip()
            return self._told(blank, asked, sent, text, evidence)
        answer = self._told(blank, asked, sent, text, evidence)
        if kind == AnswerType.POSITION:
            answer = self._placed(answer)
        return answer

    def _placed(self, answer: Answer) -> Answer:
        """The position of the boxed thing; without a box, that of the robot at the strongest evidence with a pose."""
        first = next((e for e in answer.evidence if e.pose is not None), None)
        if first is None or first.pose is None:
            return answer
        place = self.evidence.object_pose(first) if first.region is not None else None
        whose = PoseKind.OBSERVER if place is None else PoseKind.OBJECT
        return replace(answer, pose=place or first.pose, pose_kind=whose, map_id=first.pose.map_id)
