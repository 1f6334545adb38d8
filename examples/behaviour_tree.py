"""A behaviour of py_trees that asks the memory: RUNNING while it waits, then SUCCESS or FAILURE, and the blackboard.

A behaviour tree is ticked many times a second and must never wait. So a thread of its own asks the question, and
`update` only looks whether the answer has come. SUCCESS means "answered"; for a yes-or-no question it means "yes", so
that the behaviour can be a condition. All else is FAILURE, and `feedback_message` says which: NOT_OBSERVED, BUSY,
TIMEOUT, ... A tree that leaves the behaviour while it is RUNNING cancels the question, which frees the network for
others. The answer lies on the blackboard under `key` for behaviours that come after, such as one that drives to
`answer.pose`. Needs `pip install py_trees`. With the node running, this asks one question and drives nowhere:

    python examples/behaviour_tree.py "where is the red box?"
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import py_trees
import rclpy
from py_trees.common import Access, Status

from salmonn_node.client import Answer, AnswerType, ErrorCode, Memory, Outcome


class AskMemory(py_trees.behaviour.Behaviour):
    """Asks when it is entered; see the top of this file.

    Args:
        name: of the behaviour.
        memory: whom to ask.
        text: the question.
        key: where the Answer is put on the blackboard.
        arguments: others of Memory.ask, such as `answer_type` and `timeout_s`.
    """

    def __init__(self, name: str, memory: Memory, text: str, key: str = "answer", **arguments: Any) -> None:
        super().__init__(name)
        self._memory, self._text, self._key, self._arguments = memory, text, key, arguments
        self._cancel = threading.Event()
        self._answers: list[Answer | Exception] = []
        self._board = self.attach_blackboard_client(name=name)
        self._board.register_key(key=key, access=Access.WRITE)

    def initialise(self) -> None:
        """Send the question."""
        cancel = threading.Event()
        answers: list[Answer | Exception] = []
        self._cancel, self._answers = cancel, answers

        def work() -> None:
            try:
                answers.append(self._memory.ask(self._text, cancel=cancel, **self._arguments))
            except Exception as error:
                # Without this the behaviour would be RUNNING for ever.
                answers.append(error)

        threading.Thread(target=work, daemon=True).start()

    def update(self) -> Status:
        """Look whether the answer has come."""
        if not self._answers:
            return Status.RUNNING
        answer = self._answers[0]
        if isinstance(answer, Exception):
            self.feedback_message = f"{type(answer).__name__}: {answer}"
            return Status.FAILURE
        self._board.set(self._key, answer)
        if answer.error_code != ErrorCode.NONE:
            self.feedback_message = f"{answer.error_code.name}: {answer.error_msg}"
            return Status.FAILURE
        self.feedback_message = f"{answer.outcome.name}: {answer.text}"
        yes = answer.binary or answer.answer_type != AnswerType.BINARY
        return Status.SUCCESS if answer.outcome == Outcome.ANSWERED and yes else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        """Cancel the question when the tree goes elsewhere."""
        if new_status == Status.INVALID:
            self._cancel.set()


def main() -> int:
    """Tick a tree of one behaviour until it is done."""
    rclpy.init()
    node = rclpy.create_node("planner")
    behaviour = AskMemory("ask", Memory(node), sys.argv[1], answer_type=AnswerType.POSITION, timeout_s=10.0)
    tree = py_trees.trees.BehaviourTree(behaviour)
    tree.tick()
    while behaviour.status == Status.RUNNING:
        time.sleep(0.05)
        tree.tick()
    print(behaviour.status.name, behaviour.feedback_message)
    rclpy.try_shutdown()
    return 0 if behaviour.status == Status.SUCCESS else 1


if __name__ == "__main__":
    sys.exit(main())
