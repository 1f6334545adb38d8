"""Services whose replies come later, from any thread, without holding one of the executor's threads."""

from __future__ import annotations

import threading
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

    rclpy keeps a waiting coroutine alive by polling it without pause, and a waiting callback keeps a thread, so a
    hundred open questions need this: the executor hands the return value to `send_response`, which is replaced by one
    that remembers the request's header.
    """
    service = node.create_service(
        service_type,
        name,
        lambda request, _response: callback(request),
        qos_profile=MANY_AT_ONCE,
        callback_group=callback_group,
    )
    send_response = service.send_response

    def send_later(reply: DeferredReply, header: Any) -> None:
        def send(response: Any) -> None:
            try:
                send_response(response, header)
            except InvalidHandle:
                node.get_logger().warning(f"reply of {name} lost: the service is gone")

        reply.bind(send)

    service.send_response = send_later
    return service
