"""An executor goes on when something it waits for is destroyed; messages wait for no other callback."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.waitable import NumberOfEntities, Waitable
from sensor_msgs.msg import CameraInfo

from salmonn_node.ros.spinning import MessagesFirstExecutor

from .harness import PATIENCE_S, Robot

RCLError = rclpy_implementation.RCLError
pytestmark = pytest.mark.ros


class Destroyed(Waitable):
    """What an event handler is once, between being listed and being waited for, when its subscription is destroyed."""

    def __init__(self) -> None:
        super().__init__(ReentrantCallbackGroup())
        self.hits = 0

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities()

    def add_to_wait_set(self, wait_set: Any) -> None:
        self.hits += 1
        if self.hits == 1:
            raise InvalidHandle("cannot use Destroyable because destruction was requested")

    def is_ready(self, wait_set: Any) -> bool:
        return False

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class Untakeable(Waitable):
    """Something whose data cannot be taken, when `due`."""

    def __init__(self) -> None:
        super().__init__(ReentrantCallbackGroup())
        self.due = False

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities()

    def add_to_wait_set(self, wait_set: Any) -> None: ...

    def is_ready(self, wait_set: Any) -> bool:
        due, self.due = self.due, False
        return due

    def take_data(self) -> None:
        raise ZeroDivisionError("on purpose")

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_spinning_survives_a_destroyed_entity_and_ends_at_shutdown(robot: Robot) -> None:
    import rclpy

    node = rclpy.create_node("survivor")
    gone, ticked = Destroyed(), threading.Event()
    node.add_waitable(gone)
    node.create_timer(0.01, lambda: ticked.set() if gone.hits > 1 else None)
    executor = MessagesFirstExecutor(2)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    assert ticked.wait(PATIENCE_S), "timers go on"
    executor.shutdown()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    node.destroy_node()


def test_messages_are_taken_by_the_spinning_thread_while_a_service_works(robot: Robot) -> None:
    import rclpy

    node = rclpy.create_node("worker")
    asked, heard = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def hear(_: CameraInfo) -> None:
        threads.append(threading.current_thread())
        heard.set()

    def work(_: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        threads.append(threading.current_thread())
        asked.set()
        response.success = heard.wait(PATIENCE_S)
        return response

    group = ReentrantCallbackGroup()
    node.create_subscription(CameraInfo, "~/info", hear, 1, callback_group=group)
    node.create_service(ChangeState, "~/work", work, callback_group=group)
    executor = MessagesFirstExecutor(1)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    client = robot.node.create_client(ChangeState, "worker/work")
    publisher = robot.node.create_publisher(CameraInfo, "worker/info", 1)
    try:
        assert client.wait_for_service(PATIENCE_S)
        reply = client.call_async(ChangeState.Request())
        assert asked.wait(PATIENCE_S)

        def publish() -> bool:
            publisher.publish(CameraInfo())  # the first ones may come before the subscription knows the publisher
            return heard.is_set()

        robot.wait(publish, PATIENCE_S, "a message is heard")
        robot.wait(reply.done, 2 * PATIENCE_S, "the service replies")
        assert reply.result().success, "the message came while the service was at work"
        assert threads[0] is not thread
        assert threads[1] is thread
    finally:
        robot.node.destroy_client(client)
        robot.node.destroy_publisher(publisher)
        executor.shutdown()
        thread.join(PATIENCE_S)
        node.destroy_node()
    assert not thread.is_alive()


def test_what_callbacks_raise_is_counted_and_the_others_go_on() -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("broken", context=context)
    asker = rclpy.create_node("asker", context=context)
    again = threading.Event()

    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    def tick() -> None:
        publisher.publish(b"\x00\x01\x00\x00\xff\xff\xff\xff")  # bytes that are no CameraInfo
        publisher.publish(CameraInfo())
        untakeable.due = True
        if all(executor.failures[name] > 1 for name in ("Timer", "/info", "~/work", "Untakeable")):
            again.set()
        client.call_async(ChangeState.Request())

    group = ReentrantCallbackGroup()
    node.create_subscription(CameraInfo, "/info", fail, 1, callback_group=group)
    node.create_service(ChangeState, "~/work", fail, callback_group=group)
    node.create_timer(0.01, fail)
    untakeable = Untakeable()
    node.add_waitable(untakeable)
    publisher = asker.create_publisher(CameraInfo, "/info", 1)
    client = asker.create_client(ChangeState, "/broken/work")
    asker.create_timer(0.05, tick)
    executor = MessagesFirstExecutor(2, context=context)
    executor.add_node(node)
    executor.add_node(asker)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        assert again.wait(PATIENCE_S), executor.failures
    finally:
        executor.shutdown()
        thread.join(PATIENCE_S)
        node.destroy_node()
        asker.destroy_node()
        rclpy.try_shutdown(context=context)


def test_waiting_that_fails_again_and_again_ends_the_spinning() -> None:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    executor = MessagesFirstExecutor(1, context=context)

    def fail(*_: object, **__: object) -> None:
        raise RCLError("on purpose")

    executor.wait_for_ready_callbacks = fail
    with pytest.raises(RCLError):
        executor.spin()
    executor.shutdown()
    rclpy.try_shutdown(context=context)
