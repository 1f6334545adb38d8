"""Action `watch` over real ROS: new memory only, the past once, until, cancelling, and what cannot be watched for."""

from __future__ import annotations

import threading
import uuid

import pytest
from rclpy.action import ActionClient
from unique_identifier_msgs.msg import UUID

from salmonn_interfaces.action import Watch
from salmonn_node.client import Memory, Watched
from salmonn_node.client.goal_ids import new_goal_id
from salmonn_node.stream.answers import ErrorCode

from .harness import PATIENCE_S, SECOND_NS, NodeProcess, Robot

pytestmark = pytest.mark.ros


class Watching:
    """A watch in a thread of its own."""

    def __init__(self, memory: Memory, text: str, **arguments: object) -> None:
        self.looks: list[tuple[int, int]] = []
        self.ends: list[Watched] = []
        self.cancel = threading.Event()

        def run() -> None:
            on_evaluation = lambda number, until_ns: self.looks.append((number, until_ns))  # noqa: E731
            self.ends.append(
                memory.watch(
                    text,
                    period_s=0.1,
                    timeout_s=PATIENCE_S,
                    on_evaluation=on_evaluation,
                    cancel=self.cancel,
                    **arguments,
                )
            )

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> Watched:
        self.thread.join(PATIENCE_S)
        assert self.ends, f"the watch did not end: {self.looks}"
        return self.ends[0]


def test_becomes_true_of_new_memory_with_evidence(memory: Memory, seen: int, robot: Robot) -> None:
    watching = Watching(memory, "after 3 looks", after_ns=seen - SECOND_NS)
    robot.wait(lambda: bool(watching.looks), PATIENCE_S, "the past is looked at")
    for looks in (2, 3):
        stamp = robot.step()
        robot.images.publish(robot.image(stamp))
        robot.wait(
            lambda n=looks: len(watching.looks) >= n or bool(watching.ends), PATIENCE_S, "what is new is looked at"
        )
    end = watching.end()
    assert end.became_true, end
    # The past once, then one look for each new image.
    assert end.evaluations == 3
    assert [number for number, _ in watching.looks] == [1, 2]
    assert watching.looks[0][1] == seen
    assert end.answer.binary
    # Temporal patches span two images: the last look reaches back behind the newest image by one more.
    assert all(e.interval.end_ns >= stamp - 1.5 * SECOND_NS for e in end.answer.evidence)
    assert end.answer.evidence


def test_without_after_the_past_is_not_looked_at_and_until_ends_it(memory: Memory, seen: int, robot: Robot) -> None:
    robot.wait(lambda: robot.count("questions", "watches") == 0, PATIENCE_S, "no watch is open")
    watching = Watching(memory, "after 1", until_ns=seen + 2 * SECOND_NS)
    robot.wait(lambda: robot.count("questions", "watches") == 1, PATIENCE_S, "the watch is open")
    robot.step(5.0)  # the clock goes on, and nothing is observed
    end = watching.end()
    assert not end.became_true
    assert end.answer.error_code == ErrorCode.NONE
    assert end.evaluations == 0


def test_cancel_between_and_during_looks(memory: Memory, seen: int, robot: Robot) -> None:
    robot.wait(lambda: robot.count("questions", "watches") == 0, PATIENCE_S, "no watch is open")
    for text, after in (("never", 0), ("hang", seen - SECOND_NS)):
        watching = Watching(memory, text, after_ns=after)
        robot.wait(lambda: robot.count("questions", "watches") == 1, PATIENCE_S, "the watch is open")
        watching.cancel.set()
        end = watching.end()
        assert end.answer.error_code == ErrorCode.CANCELED, end
        assert not end.became_true
        robot.wait(lambda: robot.count("questions", "watches") == 0, PATIENCE_S, "no watch is open any more")


def test_a_watch_whose_client_is_gone_ends_and_others_go_on(node: NodeProcess, robot: Robot) -> None:
    """As when a planner is killed, or is closed before it hears that its goal was accepted."""
    goal = Watch.Goal()
    goal.question.text = "never"
    client = ActionClient(robot.node, Watch, "salmonn/watch")
    assert client.wait_for_server(PATIENCE_S)
    ids = [new_goal_id("/nobody"), new_goal_id("/robot"), uuid.uuid4().bytes]
    sent = [client.send_goal_async(goal, goal_uuid=UUID(uuid=list(one))) for one in ids]
    robot.wait(lambda: all(reply.done() for reply in sent), PATIENCE_S, "the goals are taken")
    results = [reply.result().get_result_async() for reply in sent]
    robot.wait(lambda: robot.count("questions", "watches") == 3, PATIENCE_S, "three watches are open")
    robot.wait(results[0].done, PATIENCE_S, "the watch of nobody ends")
    answer = results[0].result().result.answer
    assert (answer.error_code, answer.error_msg) == (ErrorCode.CANCELED, "its client is gone")
    robot.wait(lambda: robot.count("questions", "watches") == 2, PATIENCE_S, "the others go on")
    for reply in sent[1:]:
        reply.result().cancel_goal_async()
    robot.wait(lambda: robot.count("questions", "watches") == 0, PATIENCE_S, "all have ended")
    client.destroy()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"answer_type": 3}, "answer_type"),
        ({"before": 5}, "before"),
        ({"text": ""}, "text"),
        ({"period": 0.01}, "period"),
    ],
)
def test_what_cannot_be_watched_for_is_refused_by_name(
    memory: Memory, robot: Robot, change: dict[str, object], names: str
) -> None:
    goal = Watch.Goal()
    goal.question.text = str(change.get("text", "is it so?"))
    goal.question.answer_type = change.get("answer_type", 2)
    goal.question.before.sec = change.get("before", 0)
    goal.period.nanosec = int(float(change.get("period", 1.0)) % 1 * SECOND_NS)
    client = ActionClient(robot.node, Watch, "salmonn/watch")
    assert client.wait_for_server(PATIENCE_S)
    sent = client.send_goal_async(goal)
    robot.wait(sent.done, PATIENCE_S, "the goal is taken")
    result = sent.result().get_result_async()
    robot.wait(result.done, PATIENCE_S, "the goal has a result")
    answer = result.result().result.answer
    client.destroy()
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert names in answer.error_msg
