"""What the tests of the question queue share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def desks(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Make queues of the module's own `Desk`; afterwards every answer is let go, and the queues are closed."""
    made: list[Any] = []

    def make(**settings: object) -> Any:
        made.append(request.module.Desk(**settings))
        return made[-1]

    yield make
    for desk in made:
        desk.go.release(1000)
        desk.queue.close()
