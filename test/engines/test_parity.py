"""The parity rule."""

from __future__ import annotations

import pytest
import torch

from salmonn_node.engines import parity
from salmonn_node.engines.spec import EngineSpec, TensorSpec


def spec(dtype: str) -> EngineSpec:
    return EngineSpec(
        "m", "audio", (8,), dtype, (TensorSpec("mel", (1, 4, 8), dtype),), (TensorSpec("tokens", (1, 4, 8), dtype),)
    )


class Scale(torch.nn.Module):
    def __init__(self, factor: float, offset: float = 0.0):
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, x):
        return (x * self.factor + self.offset,)


def measure(encoder, dtype="bf16", rough=1.004):
    same = None if dtype == "fp32" else Scale(rough)
    return parity.compare(encoder, Scale(1.0), same, spec(dtype), parity.cases(spec(dtype)))


def test_an_equal_encoder_passes():
    assert parity.worst(measure(Scale(1.0))) is None
    assert parity.worst(measure(Scale(1.0), "fp32")) is None


def test_the_limit_is_one_and_a_half_times_torchs_own_error():
    assert parity.worst(measure(Scale(1.005))) is None
    found = parity.worst(measure(Scale(1.02)))
    assert found.kind == "PARITY_FAIL"


def test_however_bad_torch_is_three_percent_is_the_end():
    assert parity.worst(measure(Scale(1.05), rough=1.5)) is not None


def test_float32_has_a_limit_of_its_own():
    assert parity.worst(measure(Scale(1.002), "fp32")) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_poison_is_seen(value):
    found = parity.worst(measure(lambda x: (torch.full_like(x, value),)))
    assert "not finite" in found.detail


def test_one_wrong_token_is_seen_by_its_cosine():
    def one_wrong(x):
        y = x.clone()
        y[0, 2] = -y[0, 2] * 1e-3
        return (y,)

    assert parity.smallest_cosine(one_wrong(torch.ones(1, 4, 8))[0], torch.ones(1, 4, 8)) < 0
    assert parity.worst(measure(one_wrong)) is not None


def test_real_inputs_are_used_and_must_fit():
    cases = parity.cases(spec("bf16"), [("door.wav", torch.ones(1, 4, 8))])
    assert list(cases) == ["noise0", "noise1", "noise2", "smooth", "door.wav"]
    with pytest.raises(ValueError, match=r"door.wav: shape"):
        parity.cases(spec("bf16"), [("door.wav", torch.ones(1, 4, 9))])
