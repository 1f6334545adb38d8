"""Settings that every test shares: CI never skips what it needs, threads are few."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A test asserts no wall-clock time: on a loaded machine a call may take a second.
settings.register_profile("loaded", deadline=None)
settings.load_profile("loaded")

try:
    import torch
except ModuleNotFoundError:  # `make test-other-python` runs the rooms that need no torch
    pass
else:
    # One thread: networks this small gain nothing from more, and on a loaded machine two wait for each other.
    torch.set_num_threads(int(os.environ.get("SALMONN_TEST_THREADS", "1")))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """On CI a skipped test is a failure: something it needs is missing there."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("SALMONN_CI") and not hasattr(report, "wasxfail"):
        allowed = "not shown here" in str(report.longrepr)
        if not allowed:
            report.outcome = "failed"
            report.longrepr = f"skipped on CI: {report.longrepr}"
