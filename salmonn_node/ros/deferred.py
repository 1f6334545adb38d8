"""Services that reply later from any thread, and services that still reply when their callback raises."""

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
    """The response to one request, sent later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._send: Callable[[Any], None] | None = None
        self._response: Any = None

    def set(self, response: Any) -> None:
        """Send `response`. Only the first call has an effect."""
        with self._lock:
            if self._response is not None:
                return
            self._response = response
            send = self._send
        if send is not None:
            send(response)

    def bind(self, send: Callable[[Any], None]) -> None:
        """Set the function that sends. A response that was set before is sent now."""
        with self._lock:
            self._send = send
            response = self._response
        if response is not None:
            send(response)


def create_deferred_service(
    node: Node, service_type: Any, name: str, callback: Callable[[Any], DeferredReply], callback_group: Any
) -> Service:
    """Like Node.create_service, but `callback(request)` returns a DeferredReply at once.

    This allows a hundred open questions. rclpy polls a waiting coroutine without pause, and a waiting callback occupies
    one of the executor's threads. The executor passes what the callback returns to `send_response`. This function
    replaces `send_response` with one that remembers the request's header.
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
                node.get_logger().warning(f"a reply of {name} was lost, because the service no longer exists")

        reply.bind(send)

    service.send_response = send_later  # type: ignore[method-assign, assignment]
    return service


def reply_always(node: Node) -> None:
    """Make each service that the node has now send a reply even when its callback raises.

    rclpy would send no reply, and the caller would wait forever; a parameter of an unknown type is one such case. The
    reply is an empty response, in which `success` is false and lists are empty. The log says why. Services with their
    own error codes catch their exceptions themselves.
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
