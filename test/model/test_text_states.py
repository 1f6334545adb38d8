"""States of a text alone: those of the decoder's own pass, bit for bit, in float32 and in half precision."""

from __future__ import annotations

import pytest
import torch

from salmonn_node.model.text_states import text_states
from salmonn_node.model.video_salmonn_s import VideoSalmonnS


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (1, 13), (1, 96), (3, 7)])
def test_the_states_are_those_of_the_decoder(dtype, batch, length):
    model = VideoSalmonnS.tiny(seed=3, dtype=dtype)
    ids = torch.randint(0, 500, (batch, length), generator=torch.Generator().manual_seed(length))
    decoder, rows = model.network.language.decoder, model.network.language.embed(ids)
    where = torch.arange(length).expand(3, batch, -1)
    with torch.no_grad():
        theirs = decoder(inputs_embeds=rows, attention_mask=None, position_ids=where, use_cache=False)
    assert torch.equal(text_states(decoder, rows), theirs.last_hidden_state)


def test_layers_with_quantised_weights_are_called_as_they_are():
    model = VideoSalmonnS.tiny(weights="int8")
    decoder, rows = model.network.language.decoder, model.network.language.embed(torch.arange(12)[None])
    where = torch.arange(12).expand(3, 1, -1)
    with torch.no_grad():
        theirs = decoder(inputs_embeds=rows, attention_mask=None, position_ids=where, use_cache=False)
    assert torch.equal(text_states(decoder, rows), theirs.last_hidden_state)
