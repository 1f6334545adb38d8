"""Lifecycle transitions on request: runs one at a time and refuses those that do not fit the state."""

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

# The transitions that a caller may request. The state machine has internal ones, such as "the running transition
# succeeded", and would accept them from any caller.
PUBLIC = range(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVE_SHUTDOWN + 1)

Callback = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def reported(callback: Callback) -> Callback:
    """Decorate a transition callback of a node that has `note_problem`: log exceptions, then return ERROR.

    rclpy itself turns an exception into ERROR silently.
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
    """Checks requests to the node's `~/change_state` service before rclpy gets them.

    rclpy passes every request to its state machine, and an exception there ends the executor. This class replies
    `success: false` to a request that does not fit the state or comes while another transition runs. Services that
    report the state also reply during a transition, so that a second planner sees "configuring".

    Args:
        node: the lifecycle node, with its services created.
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
        """Run a transition of the node's own. Returns False, and runs nothing, while another one runs."""
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
            self._log.warning(f"refused {_name(wanted)}: another transition is running")
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
