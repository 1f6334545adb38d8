"""A running node as the page's source: asked through the client, heard on its topics."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rclpy.node import Node
from rclpy.qos import QoSProfile

from salmonn_interfaces.msg import AnsweredQuestion, MemoryStatus
from salmonn_node.client.managed_memory import ManagedMemory
from salmonn_node.client.qos import LATCHED
from salmonn_node.client.spinner import Spinner
from salmonn_node.messages.answers import answer_from_message
from salmonn_node.messages.base import stamp_ns
from salmonn_node.stream.answers import Answer, Evidence, Question
from salmonn_node.stream.kept_timeline import KeptTimeline
from salmonn_node.stream.observations import Interval
from salmonn_node.ui.source import Abilities, Exchange, MemoryFacts, Part, RefusedError, SourceState, WatchResult

RECENT = 20
GONE_S = 6.0  # the node sends diagnostics once a second
SAME = (
    "memory_id", "session", "frames", "audio_s", "poses", "visual_tokens", "visual_budget", "audio_tokens",
    "audio_budget", "vision_backend", "vision_backend_reason", "audio_backend", "audio_backend_reason",
    "checkpoint_id", "checkpoint_trained", "reader", "persistence",
)  # fmt: skip


class NodeSource:
    """Talks to one node; see `Source`.

    Args:
        node: any node of this process; gives context and namespace.
        server: name of the salmonn node.
        read_only: refuse what changes the memory.

    Raises:
        ValueError: `server` is not a valid node name.
    """

    origin_ns = 0

    def __init__(self, node: Node, server: str, *, read_only: bool = False) -> None:
        self.title = f"node {server}"
        self.python_call = f'memory = Memory(node, "{server}")'
        self.abilities = Abilities(live=True, watch=True, change=not read_only)
        self._memory = ManagedMemory(node, server)
        self._server = server.rpartition("/")[2]
        self._lock = threading.Lock()
        self._facts: MemoryFacts | None = None
        self._parts: dict[str, Part] = {}
        self._heard_s = 0.0
        self._recent: deque[Exchange] = deque(maxlen=RECENT)
        self._spinner = Spinner(node)
        own = self._spinner.node
        self._status_topic = node.resolve_topic_name(f"{server}/memory_status")
        answers = node.resolve_topic_name(f"{server}/answers")
        own.create_subscription(MemoryStatus, self._status_topic, self._on_status, LATCHED)
        own.create_subscription(AnsweredQuestion, answers, self._on_answer, QoSProfile(depth=RECENT))
        own.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=50))

    def close(self) -> None:
        """Leave the ROS graph."""
        self._spinner.close()
        self._memory.close()

    # -- what the node says -------------------------------------------------------------------------------------------

    def _on_status(self, message: Any) -> None:
        facts = MemoryFacts(
            **{name: getattr(message, name) for name in SAME},
            start_ns=stamp_ns(message.memory_start),
            newest_ns=stamp_ns(message.last_observation),
            drops={str(drop.reason): int(drop.count) for drop in message.drops},
            last_snapshot_ns=stamp_ns(message.last_snapshot),
        )
        with self._lock:
            self._facts = facts

    def _on_diagnostics(self, message: Any) -> None:
        prefix = f"{self._server}: "
        parts = {
            status.name[len(prefix) :]: Part(
                status.name[len(prefix) :],
                int.from_bytes(status.level, "little"),
                status.message,
                {pair.key: pair.value for pair in status.values},
            )
            for status in message.status
            if status.name.startswith(prefix)
        }
        if parts:
            with self._lock:
                self._parts, self._heard_s = parts, time.monotonic()

    def _on_answer(self, message: Any) -> None:
        try:
            asked = Exchange(str(message.question.text), answer_from_message(message.answer))
        except ValueError:  # a newer node, with codes that are not known here
            return
        with self._lock:
            self._recent.appendleft(asked)

    def state(self) -> SourceState:
        """How the node is now."""
        with self._lock:
            facts, parts, silent_s = self._facts, tuple(self._parts.values()), time.monotonic() - self._heard_s
            heard = self._heard_s > 0
        visible = self._spinner.is_open and self._spinner.node.count_publishers(self._status_topic) > 0
        if not heard or not visible or silent_s > GONE_S:
            last = "It was there before" if heard else "It was never heard"
            text = f"The node {self._server} does not answer. {last}. This page goes on as soon as the node is there."
            return SourceState(False, text, facts, parts)
        lifecycle = next((part.values.get("lifecycle_state", "") for part in parts if part.name == "node"), "")
        if lifecycle != "active":
            text = f"The node {self._server} is {lifecycle or 'starting'}, not active: it observes and answers nothing."
            return SourceState(False, text, facts, parts)
        return SourceState(True, f"The node {self._server} observes and answers.", facts, parts)

    def recent(self) -> tuple[Exchange, ...]:
        """The last questions of everybody, newest first."""
        with self._lock:
            return tuple(self._recent)

    # -- what one may ask it ------------------------------------------------------------------------------------------

    def ask(self, question: Question, on_text: Callable[[str], None], cancel: threading.Event) -> Answer:
        """Ask the node."""
        return self._memory.ask(
            question.text,
            answer_type=question.answer_type,
            choices=question.choices,
            after_ns=question.after_ns,
            before_ns=question.before_ns,
            sources=question.sources,
            timeout_s=question.timeout_s,
            max_evidence=question.max_evidence,
            want_thumbnails=True,
            on_text=on_text,
            cancel=cancel,
        )

    def watch(self, question: Question, on_look: Callable[[int], None], cancel: threading.Event) -> WatchResult:
        """Watch at the node."""
        watched = self._memory.watch(
            question.text,
            sources=question.sources,
            timeout_s=question.timeout_s,
            on_evaluation=lambda looks, until_ns: on_look(looks),
            cancel=cancel,
        )
        return WatchResult(watched.became_true, watched.answer, watched.evaluations)

    def timeline(self, interval: Interval | None, max_bins: int, max_poses: int) -> KeptTimeline:
        """What the node still holds."""
        after_ns, before_ns = (interval.start_ns, interval.end_ns) if interval else (0, 0)
        return _refusing(
            self._memory.timeline, after_ns=after_ns, before_ns=before_ns, max_bins=max_bins, max_poses=max_poses
        )

    def moment(self, source: str, stamp_ns: int) -> Evidence:
        """What a camera or microphone gave."""
        found: Evidence = _refusing(self._memory.moment, source, stamp_ns)
        return found

    def sound(self, source: str, interval: Interval) -> bytes:
        """A node keeps no sound."""
        raise RefusedError(
            "The node keeps what it made of the sound, not the sound itself, so there is nothing to play."
        )

    # -- what changes its memory --------------------------------------------------------------------------------------

    def stored(self) -> tuple[str, ...]:
        """Names of the node's stored memories."""
        return tuple(_refusing(self._memory.stored).names)

    def forget(self, interval: Interval | None) -> str:
        """Forget at the node."""
        self._changing()
        if interval is None:
            return f"Everything was forgotten. The new memory is {_refusing(self._memory.clear, 60.0)}."
        return str(_refusing(self._memory.forget, interval))

    def save(self, name: str, overwrite: bool) -> str:
        """Save at the node."""
        self._changing()
        return str(_refusing(self._memory.save, name, overwrite=overwrite))

    def load(self, name: str) -> str:
        """Load at the node, which is inactive meanwhile; afterwards it is as it was."""
        self._changing()
        was = self._memory.state()
        if was == "active" and not self._memory.change_state(Transition.TRANSITION_DEACTIVATE):
            raise RefusedError(f"The node {self._server} could not be deactivated, so nothing was loaded.")
        try:
            return str(_refusing(self._memory.load, name))
        finally:
            if was == "active":
                self._memory.change_state(Transition.TRANSITION_ACTIVATE)

    def _changing(self) -> None:
        if not self.abilities.change:
            raise RefusedError("This page was started with --read-only: it changes nothing.")


def _refusing(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except RuntimeError as error:
        raise RefusedError(str(error)) from error
