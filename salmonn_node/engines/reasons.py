"""Why an encoder does not run on a plan: one code and one sentence, the same in logs, diagnostics and errors."""

from __future__ import annotations

from dataclasses import dataclass

NO_TRT = "NO_TRT"  # TensorRT cannot be imported, or there is no CUDA device to run it on
NO_CUDA = "NO_CUDA"  # a CUDA graph was asked for where there is no CUDA device
NO_ENGINE = "NO_ENGINE"  # no plan was built for this shape
STALE = "STALE"  # STALE:<field>: a plan is there, and this field of it differs
PARITY_FAIL = "PARITY_FAIL"  # the plan's outputs were not seen to equal torch's on this GPU
LOAD_FAIL = "LOAD_FAIL"  # TensorRT refused the plan, or it failed while it was warmed up
RUNTIME_FAIL = "RUNTIME_FAIL"  # a loaded encoder failed: this one is an error, never a fallback


@dataclass(frozen=True)
class Reason:
    """A code, the field it concerns when the code is STALE, and what a person needs to know."""

    kind: str
    detail: str
    field: str = ""

    @property
    def code(self) -> str:
        """`NO_TRT`, `STALE:trt_version`, ...: the value that diagnostics carry."""
        return f"{self.kind}:{self.field}" if self.field else self.kind

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def stale(field: str, plan: object, here: object) -> Reason:
    """Name the field in which the plan differs from what is wanted here."""
    return Reason(STALE, f"the plan has {field} {plan!r}, wanted here is {here!r}", field)


def is_device_error(error: BaseException) -> bool:
    """Whether the GPU itself failed: then its context is lost, and no later call on it can succeed."""
    known = isinstance(error, EngineError) or type(error).__name__ == "AcceleratorError"
    return known or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


class EngineError(RuntimeError):
    """An engine was required and cannot be used, or a loaded one failed; `reason` says why."""

    def __init__(self, reason: Reason):
        super().__init__(str(reason))
        self.reason = reason
