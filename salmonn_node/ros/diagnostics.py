"""The node's health on /diagnostics: a status for the node, each input, the memory, the frames and the questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from salmonn_node.answering.question_queue import QuestionQueue
from salmonn_node.ros.inputs import Inputs
from salmonn_node.ros.monitor import InputMonitor, InputReport
from salmonn_node.runtime.build import Backend
from salmonn_node.stream.answers import AnswerType, Question

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE

# Drops that are normal and no fault.
BY_DESIGN = ("not_sampled",)
SILENT_S = 3.0
FAST_DDS_HINT = (
    "large messages go missing: a best-effort publisher needs a larger Fast DDS segment "
    "(config/fastdds_camera.xml), reliable QoS, or compressed images"
)


class Diagnostics:
    """Publishes the diagnostics. Every refusal is shown with its reason."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._seen: dict[str, dict[str, int]] = {}

    def publish(
        self,
        state: str,
        problem: str,
        backend: Backend | None,
        inputs: Inputs | None,
        questions: QuestionQueue | None,
        watches: int = 0,
        callback_failures: Mapping[str, int] | None = None,
        warning: str = "",
    ) -> None:
        """Publish the diagnostics that exist in this lifecycle state.

        Args:
            state: lifecycle state.
            problem: why the last transition failed; empty if it did not.
            backend: None unless the node is inactive or active.
            inputs: None unless the node is active.
            questions: None unless the node is active.
            watches: number of open watches.
            callback_failures: number of exceptions in callbacks, by topic or service.
            warning: what is wrong with the node but stops nothing; empty if nothing is.
        """
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        level = ERROR if problem else WARN if warning else OK
        values: dict[str, Any] = {"lifecycle_state": state}
        values |= {f"callback_failed.{name}": count for name, count in sorted(dict(callback_failures or {}).items())}
        array.status = [self._status("node", level, problem or warning or state, values)]
        if backend is not None:
            observed = backend.observer.status()
            array.status.append(self._memory(backend, observed))
            if inputs is not None:
                for name, monitor in inputs.monitors.items():
                    source = observed.sources.get(name)
                    camera_info = inputs.camera_info.get(name)
                    array.status.append(self._input(monitor, source, camera_info))
                array.status.append(self._space(backend, inputs))
        if backend is not None and backend.server is not None:
            reader = backend.server.values()
            left_alone = str(reader["circuit_breaker"]).startswith("open")
            array.status.append(
                self._status("reader", WARN if left_alone else OK, "the server fails" if left_alone else "", reader)
            )
        if questions is not None:
            array.status.append(self._questions(questions, watches))
        self._publisher.publish(array)

    def _status(self, name: str, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
        full = f"{self._node.get_name()}: {name}"
        return DiagnosticStatus(level=level, name=full, message=message, hardware_id="", values=pairs)

    def _input(self, monitor: InputMonitor, source: Any, camera_info: Any) -> DiagnosticStatus:
        report = monitor.report()
        drops = dict(source.drops) if source is not None else {}
        fresh = self._fresh_faults(monitor.name, drops)
        clock = source.clock if source is not None else ""
        level, message = _judge(report, fresh, clock, monitor.last_error)
        values: dict[str, Any] = {
            "received": report.received,
            "rate_hz": report.rate_hz,
            "stamp_delay_s": report.delay_s,
            "missing_share": report.missing_share,
            "longest_stamp_gap_s": source.longest_gap_s if source is not None else 0.0,
            "callback_p50_ms": report.callback_ms[0],
            "callback_p99_ms": report.callback_ms[1],
            "callback_cpu_p99_ms": report.callback_cpu_ms[1],
            "queued": source.queued if source is not None else 0,
            "late": source.late if source is not None else 0,
            "dropped": sum(drops.values()),
        }
        values |= {f"dropped.{reason}": count for reason, count in sorted(drops.items())}
        if monitor.last_error:
            values["last_error"] = monitor.last_error
        if clock:
            values["clock"] = clock
        if camera_info is not None:
            values["camera_info"] = camera_info
        return self._status(f"input {monitor.name}", level, message, values)

    def _space(self, backend: Backend, inputs: Inputs) -> DiagnosticStatus:
        """Status of tf frames and object positions, with counts of the reasons why objects got no position."""
        values: dict[str, Any] = {"tf": inputs.tf}
        if backend.grounding is not None:
            values["frames"] = len(backend.grounding.frames.frames)
            values |= {f"objects.{reason}": count for reason, count in sorted(dict(backend.grounding.counts).items())}
        values |= {f"dropped.{reason}": count for reason, count in sorted(dict(inputs.tf_refused).items())}
        return self._status("space", OK, "", values)

    def _fresh_faults(self, name: str, drops: dict[str, int]) -> list[str]:
        """Reasons that were counted since the last array, without those in BY_DESIGN."""
        before, self._seen[name] = self._seen.get(name, {}), drops
        return [r for r, count in drops.items() if r not in BY_DESIGN and count > before.get(r, 0)]

    def _memory(self, backend: Backend, observed: Any) -> DiagnosticStatus:
        values: dict[str, Any] = {
            "memory_id": observed.memory_id,
            "session": observed.session,
            "frames": observed.frames,
            "audio_s": observed.audio_s,
            "poses": observed.poses,
            "visual_tokens": f"{observed.tokens[0]}/{observed.budgets[0]}",
            "audio_tokens": f"{observed.tokens[1]}/{observed.budgets[1]}",
            "encode_p50_ms": observed.encode_ms[0],
            "encode_max_ms": observed.encode_ms[1],
            "checkpoint": backend.checkpoint_id,
            "reader": backend.reader,
            "storage": backend.storage,
            "clock_steps_tolerated": observed.clock_steps,
        }
        values["waiting_tokens"] = sum(observed.waiting_tokens)
        values["waiting_views"] = observed.waiting_views
        values |= {f"queue.{kind}": count for kind, count in observed.queue.items()}
        values |= {f"dropped.{reason}": count for reason, count in sorted(observed.drops.items())}
        for encoder, (name, reason) in backend.encoders.items():
            values[f"{encoder}_backend"] = f"{name} ({reason})" if reason else name
        fresh = self._fresh_faults("memory", observed.drops)
        faults = [r for r in fresh if r in ("queue_full", "encode_failed", "device_failed")]
        if faults:
            return self._status("memory", WARN, "observations are lost: " + ", ".join(faults), values)
        if backend.storage_problem:
            return self._status("memory", ERROR, f"not stored: {backend.storage_problem}", values)
        if backend.damage:
            return self._status("memory", WARN, f"lost at the last restore: {'; '.join(backend.damage)}", values)
        message = "" if backend.trained else "untrained weights: answers mean nothing"
        return self._status("memory", OK, message, values)

    def _questions(self, questions: QuestionQueue, watches: int) -> DiagnosticStatus:
        latencies = sorted(questions.latency_s) or [0.0]
        values: dict[str, Any] = {"open": len(questions.open_tickets()), "watches": watches}
        values |= {f"replied.{outcome}": count for outcome, count in sorted(questions.counts.items())}
        values["latency_p50_s"] = latencies[len(latencies) // 2]
        values["latency_max_s"] = latencies[-1]
        # For a question over the whole memory that does not have to wait. A planner's deadline should allow this much.
        values["expected_text_s"] = questions.expected_s(Question("", AnswerType.TEXT))
        if questions.last_error:
            values["last_error"] = questions.last_error
        return self._status("questions", OK, "", values)


def _judge(report: InputReport, fresh: Iterable[str], clock: str, last_error: str) -> tuple[bytes, str]:
    faults = list(fresh)
    reason = clock or last_error
    if faults:
        return WARN, f"refused: {', '.join(faults)}" + (f" ({reason})" if reason else "")
    if report.received == 0:
        return STALE, reason or "nothing received"
    if report.silent_s > SILENT_S:
        return STALE, f"silent for {report.silent_s:.0f} s"
    if report.looks_like_fast_dds_drops:
        return WARN, f"{report.missing_share:.0%} of the messages did not arrive; {FAST_DDS_HINT}"
    if report.missing_share > 0.2:
        return WARN, f"{report.missing_share:.0%} of the messages did not arrive"
    return (WARN, clock) if clock else (OK, "")


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
