"""A camera's intrinsics are those of the picture's time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.stream.camera_history import CameraHistory
from salmonn_node.stream.camera_model import CameraModel
from salmonn_node.stream.observations import SECOND_NS as S


def model(focal: float, width: int = 640) -> CameraModel:
    matrix = np.array([[focal, 0, width / 2], [0, focal, 180], [0, 0, 1]], np.float64)
    return CameraModel(width, 360, matrix, "plumb_bob", np.zeros(5), "front_optical")


def focal(history: CameraHistory, stamp_ns: int) -> float:
    found = history.at("front", stamp_ns)
    assert found is not None
    return float(found.matrix[0, 0])


def test_a_lens_that_zooms_and_a_camera_that_restarts_with_another_size() -> None:
    history = CameraHistory()
    assert history.at("front", 5 * S) is None
    history.add("front", 10 * S, model(400))
    history.add("front", 20 * S, model(800))
    history.add("front", 30 * S, model(800, 1280))
    history.add("rear", 10 * S, model(100))
    assert [focal(history, s * S) for s in (10, 19, 20, 29)] == [400, 400, 800, 800]
    assert history.at("front", 30 * S).width == 1280
    assert focal(history, 3 * S) == 400  # calibrated late: the first is the nearest


def test_time_that_runs_anew_forgets_what_was_later() -> None:
    history = CameraHistory()
    history.add("front", 100 * S, model(400))
    history.add("front", 10 * S, model(800))
    assert focal(history, 200 * S) == 800


def test_only_changes_are_kept_and_the_oldest_go_first() -> None:
    history = CameraHistory(capacity=2)
    for second in range(100):
        history.add("front", second * S, model(400))
    history.add("front", 100 * S, model(500))
    history.add("front", 101 * S, model(600))
    assert focal(history, 0) == 500
    with pytest.raises(ValueError, match="capacity"):
        CameraHistory(capacity=0)


@given(st.dictionaries(st.integers(0, 40), st.integers(1, 3), min_size=1), st.integers(0, 40))
def test_it_is_the_newest_model_that_came_before_the_picture(heard: dict[int, int], tenth: int) -> None:
    history = CameraHistory()
    for at, value in sorted(heard.items()):
        history.add("front", at * S // 10, model(100.0 * value))
    before = [at for at in heard if at <= tenth] or [min(heard)]
    assert focal(history, tenth * S // 10) == 100.0 * heard[max(before)]
