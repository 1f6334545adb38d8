"""Services of the memory as a whole: clear, save, load, forget an interval, describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode

from salmonn_interfaces.srv import ClearMemory, ForgetInterval, GetMemoryInfo, LoadMemory, SaveMemory
from salmonn_node.ros.backend import Backend
from salmonn_node.ros.status import memory_status

NO_STORE = "this node keeps no memory on disk (persistence is off)"


class MemoryServices:
    """Lives as long as the node; `backend` gives None unless the node is inactive or active."""

    def __init__(self, node: LifecycleNode, backend: Callable[[], Backend | None]) -> None:
        self._backend = backend
        # One at a time: none of them may see another's half-done work.
        group = MutuallyExclusiveCallbackGroup()
        for service_type, name, callback in (
            (ClearMemory, "~/clear_memory", self._on_clear),
            (SaveMemory, "~/save_memory", self._on_save),
            (LoadMemory, "~/load_memory", self._on_load),
            (ForgetInterval, "~/forget_interval", self._on_forget),
            (GetMemoryInfo, "~/get_memory_info", self._on_info),
        ):
            node.create_service(service_type, name, callback, callback_group=group)

    def _on_clear(self, request: Any, response: Any) -> Any:
        if not request.confirm:
            return _refuse(response, ClearMemory.Response.NOT_CONFIRMED, "confirm is false: nothing was cleared")
        backend = self._backend()
        if backend is None:
            return _refuse(response, ClearMemory.Response.WRONG_STATE, "the node is neither inactive nor active")
        backend.observer.restart()
        backend.observer.drain()
        response.memory_id = backend.observer.memory_id
        return response

    def _on_save(self, request: Any, response: Any) -> Any:
        return _refuse(response, SaveMemory.Response.WRONG_STATE, NO_STORE)

    def _on_load(self, request: Any, response: Any) -> Any:
        return _refuse(response, LoadMemory.Response.WRONG_STATE, NO_STORE)

    def _on_forget(self, request: Any, response: Any) -> Any:
        return _refuse(response, ForgetInterval.Response.WRONG_STATE, NO_STORE)

    def _on_info(self, request: Any, response: Any) -> Any:
        backend = self._backend()
        if backend is None:
            return _refuse(response, GetMemoryInfo.Response.WRONG_STATE, "the node is neither inactive nor active")
        if request.name:
            return _refuse(response, GetMemoryInfo.Response.NOT_FOUND, NO_STORE)
        response.status = memory_status(backend)
        return response


def _refuse(response: Any, code: int, text: str) -> Any:
    response.error_code, response.error_msg = code, text
    return response
