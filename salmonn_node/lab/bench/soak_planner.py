"""Planner of the soak test: it asks, watches and cancels until it is stopped, and counts how each call ended."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from salmonn_node.client import AnswerType, ErrorCode, Memory

CALLS = ("ask", "ask", "cancel", "watch")
TIMEOUTS_S = (0.3, 2.0, 10.0)


@dataclass(frozen=True)
class Silence:
    """A call to which no reply came in time.

    Attributes:
        call: which call it was.
        timeout_s: its timeout, seconds.
        began, ended: when it was made and given up, time.monotonic().
        sent: whether it was sent; if not, the node was not reached by the deadline.
    """

    call: str
    timeout_s: float
    began: float
    ended: float
    sent: bool = True


class Planner(threading.Thread):
    """Planner thread: ask, watch and cancel until `stop` is set, and count how each call ended.

    Attributes:
        ends: number of calls by error code; those that did not reach the node are "not reached".
        silent: the calls to which no reply came in time.
    """

    def __init__(self, node: Any, name: str, seed: int, stop: threading.Event) -> None:
        super().__init__(name=f"planner {seed}", daemon=True)
        self._memory, self._chance, self._stopped = Memory(node, name), random.Random(seed), stop
        self.ends: Counter[str] = Counter()
        self.silent: list[Silence] = []

    def run(self) -> None:
        """Call after call."""
        while not self._stopped.is_set():
            began = time.monotonic()
            call, timeout_s = self._chance.choice(CALLS), self._chance.choice(TIMEOUTS_S)
            answer = self._call(call, timeout_s)
            unreached = answer.error_code == ErrorCode.NOT_ACTIVE and "nothing was sent" in answer.error_msg
            self.ends["not reached" if unreached else answer.error_code.name] += 1
            if unreached or (answer.error_code == ErrorCode.TIMEOUT and answer.error_msg.startswith("no reply")):
                self.silent.append(Silence(call, timeout_s, began, time.monotonic(), not unreached))
            self._stopped.wait(self._chance.uniform(0.0, 0.2))

    def _call(self, call: str, timeout_s: float) -> Any:
        chance = self._chance
        if call == "ask":
            kind = chance.choice([AnswerType.TEXT, AnswerType.BINARY, AnswerType.COUNT, AnswerType.POSITION])
            return self._memory.ask("Have you seen a blue cross?", answer_type=kind, timeout_s=timeout_s)
        cancel = threading.Event()
        timer = threading.Timer(chance.uniform(0.0, 0.5), cancel.set)
        timer.start()
        if call == "cancel":
            return self._memory.ask("Have you seen a blue cross?", timeout_s=timeout_s, cancel=cancel)
        return self._memory.watch("is there a blue cross?", after_ns=1, period_s=0.2, cancel=cancel).answer
