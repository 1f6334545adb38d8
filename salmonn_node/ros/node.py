"""The process of the node: signals, the executor, and the exit status."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from salmonn_node.ros.memory_node import MemoryNode
from salmonn_node.ros.spinning import MessagesFirstExecutor
from salmonn_node.runtime.build import Backend, build_backend
from salmonn_node.runtime.settings import Settings
from salmonn_node.runtime.shared_memory import remove_empty_ports

# For services, timers and transitions. The spinning thread itself runs the subscription callbacks.
EXECUTOR_THREADS = 4
# How long a callback may wait for the interpreter's lock; Python's default is 5 ms.
SWITCH_INTERVAL_S = 0.0005
NO_LOGS = "; set ROS_LOG_DIR to a folder that this user may write (without it, ROS logs under ROS_HOME or HOME)"
FAILED = 1  # exit status; 0 means that a signal ended the process and the memory is on disk


def main(args: Sequence[str] | None = None, build: Callable[[Settings], Backend] = build_backend) -> int:
    """Run the node until SIGINT or SIGTERM. Open questions get CANCELED before it ends.

    Returns:
        The exit status: 0 after a signal, FAILED when the executor ended or the memory could not be written.
    """
    remove_empty_ports()
    try:
        # rclpy's own signal handlers would close the context at once, and no reply could be sent any more.
        rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        print(f"the node cannot start: {error}{NO_LOGS if 'logging' in str(error) else ''}", file=sys.stderr)
        return FAILED
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    executor = MessagesFirstExecutor(EXECUTOR_THREADS)
    node = MemoryNode(build=build)
    log = node.get_logger()
    _report_failures(node)
    executor.add_node(node)
    failed = threading.Event()

    def spin() -> None:
        try:
            executor.spin()
        except Exception:
            log.fatal(f"the executor ended:\n{traceback.format_exc()}")
        finally:
            if not stop.is_set():
                failed.set()
                stop.set()

    spinner = threading.Thread(target=spin, name="executor", daemon=True)
    spinner.start()
    stop.wait()
    try:
        node.stop("the node shuts down")
    except Exception:
        log.fatal(f"the node did not stop cleanly:\n{traceback.format_exc()}")
        failed.set()
    executor.shutdown(timeout_sec=2.0)
    spinner.join(2.0)
    node.destroy_node()
    rclpy.try_shutdown()
    return FAILED if failed.is_set() else 0


class _NodeLog(logging.Handler):
    """Forwards Python log records, from packages without rclpy, to the node's log."""

    def __init__(self, node: MemoryNode) -> None:
        super().__init__(logging.WARNING)
        self._log = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        # rclpy allows only one severity per line of code.
        if record.levelno >= logging.ERROR:
            self._log.error(self.format(record))
        else:
            self._log.warning(self.format(record))


def _report_failures(node: MemoryNode) -> None:
    """Forward Python logs and uncaught exceptions of threads to the node's log. /diagnostics shows the latter, too."""
    logging.getLogger("salmonn_node").addHandler(_NodeLog(node))

    def on_thread_end(arguments: Any) -> None:
        name = arguments.thread.name if arguments.thread is not None else "?"
        node.note_problem(f"thread {name} ended: {arguments.exc_type.__name__}: {arguments.exc_value}")
        trace = traceback.format_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        node.get_logger().error("".join(trace))

    threading.excepthook = on_thread_end


if __name__ == "__main__":
    sys.exit(main())
