"""Reasons why an encoder does not run on a plan: a code and a sentence, the same in logs, diagnostics and errors."""

from __future__ import annotations

from dataclasses import dataclass

NO_TRT = "NO_TRT"  # TensorRT cannot be imported, or there is no CUDA device to run it on
NO_CUDA = "NO_CUDA"  # a CUDA graph was requested, but there is no CUDA device
NO_ENGINE = "NO_ENGINE"  # no plan was built for this shape
STALE = "STALE"  # STALE:<field>: a plan exists, but this field of it differs
PARITY_FAIL = "PARITY_FAIL"  # the plan was not compared with torch on this GPU, or differs from it
LOAD_FAIL = "LOAD_FAIL"  # TensorRT refused the plan, or its warm-up failed
RUNTIME_FAIL = "RUNTIME_FAIL"  # a loaded encoder failed: always an error, never a fallback


@dataclass(frozen=True)
class Reason:
    """A code, the field that differs if the code is STALE, and a sentence for people."""

    kind: str
    detail: str
    field: str = ""

    @property
    def code(self) -> str:
        """The code shown in diagnostics, such as `NO_TRT` or `STALE:trt_version`."""
        return f"{self.kind}:{self.field}" if self.field else self.kind

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def stale(field: str, plan: object, here: object) -> Reason:
    """Make a STALE reason for the field in which the plan differs."""
    return Reason(STALE, f"the plan has {field} {plan!r}, wanted here is {here!r}", field)


def is_device_error(error: BaseException) -> bool:
    """Whether the GPU itself failed. Its context is then lost, and no later call can succeed."""
    known = isinstance(error, EngineError) or type(error).__name__ == "AcceleratorError"
    return known or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


class EngineError(RuntimeError):
    """An engine was required and cannot be used, or a loaded one failed. `reason` says why."""

    def __init__(self, reason: Reason):
        super().__init__(str(reason))
        self.reason = reason
