"""Services that reply later, from any thread, and services that reply although their callback raises."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.service import Service

from salmonn_node.client.qos import MANY_AT_ONCE


class DeferredReply:
    """The response of one request, filled in later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._send: Callable[[Any], None] | None = None
        self._response: Any = None

    def set(self, response: Any) -> None:
        """Send `response`; the first call counts."""
        with self._lock:
            if self._response is not None:
                return
            self._response = response
            send = self._send
        if send is not None:
            send(response)

    def bind(self, send: Callable[[Any], None]) -> None:
        """Say how to send; what was set before is sent now."""
        with self._lock:
            self._send = send
            response = self._response
        if response is not None:
            send(response)


def create_deferred_service(
    node: Node, service_type: Any, name: str, callback: Callable[[Any], DeferredReply], callback_group: Any
) -> Service:
    """Like Node.create_service, but `callback(request)` returns a DeferredReply at once.

    A hundred open questions need this: rclpy polls a coroutine that waits without pause, and a callback that waits
    keeps one of the executor's threads. The executor hands what the callback returns to `send_response`, which is
    replaced by one that remembers the request's header.
    """
    service = node.create_service(
        service_type,
        name,
        lambda request, _response: callback(request),
        qos_profile=MANY_AT_ONCE,
        callback_group=callback_group,
    )
    send_response = service.send_response

    def send_later(reply: Any, header: Any) -> None:
        if not isinstance(reply, DeferredReply):
            send_response(reply, header)
            return

        def send(response: Any) -> None:
            try:
                send_response(response, header)
            except InvalidHandle:
                node.get_logger().warning(f"reply of {name} lost: the service is gone")

        reply.bind(send)

    service.send_response = send_later  # type: ignore[method-assign, assignment]
    return service


def reply_always(node: Node) -> None:
    """Make each service that the node has now reply although its callback raises.

    rclpy sends no reply then, and the caller waits in vain: for a parameter of an unknown type, say. The reply is an
    empty response, in which `success` is false and lists are empty; the log says why. Services that have codes of
    their own for errors do not let it come to this.
    """

    def guarded(service: Service) -> Callable[[Any, Any], Any]:
        callback = service.callback

        def reply(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception:
                node.get_logger().error(f"{service.srv_name} failed:\n{traceback.format_exc()}")
                return service.srv_type.Response()  # type: ignore[attr-defined]

        return reply

    for service in node.services:
        service.callback = guarded(service)
