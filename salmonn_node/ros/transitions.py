"""Lifecycle transitions that callers ask for: one at a time; one that does not fit the state is refused."""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

# What a caller may ask for. The state machine has others, such as "the transition under way succeeded", and takes them
# from anybody.
PUBLIC = range(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVE_SHUTDOWN + 1)

Callback = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def reported(callback: Callback) -> Callback:
    """Decorate a transition callback of a node that has `note_problem`: log what it raises, then return ERROR.

    rclpy itself turns an exception into ERROR without a word.
    """

    @functools.wraps(callback)
    def wrapper(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(node, state)
        except Exception as error:
            node.note_problem(f"{callback.__name__} failed: {type(error).__name__}: {error}")
            node.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    return wrapper


class Transitions:
    """Stands before the node's `~/change_state` service.

    rclpy passes every request to its state machine, and what that raises ends the executor. Here a request that does
    not fit the state, or comes while another transition runs, gets `success: false`. The services that tell the state
    are answered during a transition, too, so that a second planner sees "configuring".

    Args:
        node: the lifecycle node; its services exist.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._log = node.get_logger()
        self._lock = threading.Lock()
        group = ReentrantCallbackGroup()
        services = {}
        for service in node.services:
            if service.srv_type.__module__.startswith("lifecycle_msgs."):
                services[service.srv_name.rpartition("/")[2]] = service
                service.callback_group = group
                group.add_entity(service)
        self._available = services["get_available_transitions"].callback
        self._change = services["change_state"].callback
        services["change_state"].callback = self._on_change_state

    def run(self, trigger: Callable[[], Any]) -> bool:
        """Run a transition that the node wants itself; False when another one is under way."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            trigger()
        finally:
            self._lock.release()
        return True

    def _on_change_state(self, request: Any, response: Any) -> ChangeState.Response:
        wanted = request.transition
        response.success = False
        if not self._lock.acquire(blocking=False):
            self._log.warning(f"refused {_name(wanted)}: another transition is under way")
            return response
        try:
            possible = [t for t in self._possible() if t.id in PUBLIC]
            fitting = [t for t in possible if (t.label == wanted.label if wanted.label else t.id == wanted.id)]
            if fitting:
                return self._change(ChangeState.Request(transition=Transition(id=fitting[0].id)), response)
            names = ", ".join(_name(t) for t in possible) or "none"
            self._log.warning(f"refused {_name(wanted)}: possible in this state: {names}")
        except Exception:
            self._log.error(f"{_name(wanted)} failed:\n{traceback.format_exc()}")
            response.success = False
        finally:
            self._lock.release()
        return response

    def _possible(self) -> list[Transition]:
        reply: Any = self._available(GetAvailableTransitions.Request(), GetAvailableTransitions.Response())
        return [description.transition for description in reply.available_transitions]


def _name(transition: Transition) -> str:
    return f"transition {transition.label[:40] or '?'} ({transition.id})"
