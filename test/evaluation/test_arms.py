"""Arms get equal bytes, and say so."""

from __future__ import annotations

import pytest
import torch

from salmonn_node.evaluation.arms import MAIN_ARMS, Arm, all_arms, parse_arms
from salmonn_node.evaluation.equal_bytes import (
    SOUND,
    bytes_table,
    configure,
    fast_weight_bytes,
    memory_bytes,
    token_bytes,
)
from salmonn_node.model.tiny import tiny_config
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

CONFIG = tiny_config()


@pytest.mark.parametrize("arm", all_arms(), ids=lambda a: a.name)
def test_equal_bytes(arm: Arm) -> None:
    made = configure(CONFIG, arm)
    allowed = memory_bytes(CONFIG).total
    used = memory_bytes(made).total
    if arm.rule == "recent":
        assert used < allowed
    else:
        assert allowed - token_bytes(CONFIG) < used <= allowed
    assert made.recall == arm.recall
    assert (made.ttt is None) == (arm.update == "")
    assert made.memory.visual_rule == arm.rule
    assert made.memory.audio_rule == SOUND.get(arm.rule, arm.rule)


def test_without_fast_weights_more_tokens_are_kept() -> None:
    plain, learned = configure(CONFIG, Arm("place")), configure(CONFIG, Arm("place", "hf", True))
    assert learned.memory.visual_tokens == CONFIG.memory.visual_tokens
    extra = plain.memory.visual_tokens - learned.memory.visual_tokens
    assert extra == fast_weight_bytes(CONFIG) // token_bytes(CONFIG) > 0


def test_bytes_are_those_of_a_real_state_and_of_real_tokens() -> None:
    from salmonn_node.memory.token_batch import TokenBatch
    from salmonn_node.memory.token_memory import TokenMemory, TokenMemoryConfig

    layer = TTTLayer(TTTConfig(hidden_size=128, **CONFIG.ttt))
    waiting = (CONFIG.ttt["mini_batch"] - 1) * (128 * 4 + 24 + token_bytes(CONFIG))
    assert fast_weight_bytes(CONFIG) == layer.init_state().nbytes + waiting
    n = 64
    memory = TokenMemory(TokenMemoryConfig(budget=n, step=n, rule="fifo"))
    numbers = torch.arange(n)
    deepstack = torch.zeros(3, n, 128)
    place = torch.zeros(n)
    memory.append(TokenBatch(torch.zeros(n, 128), deepstack, numbers, numbers, numbers, place, place, numbers))
    view = memory.view()
    held = view.z.nbytes + view.deepstack.nbytes + memory.table().nbytes
    assert held == n * token_bytes(CONFIG)


def test_names_round_trip() -> None:
    arms = all_arms()
    assert len(arms) == 48
    assert parse_arms(",".join(a.name for a in arms)) == arms
    assert parse_arms("main") == list(MAIN_ARMS)
    assert parse_arms("fifo, main")[0] == Arm("fifo")
    assert len(parse_arms("fifo,main")) == len(MAIN_ARMS)


@pytest.mark.parametrize("text", ["", "lifo", "place+adam", "place+sgd+hf", "place+recall"])
def test_bad_arms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="arm|rule|update"):
        parse_arms(text)


def test_an_arm_that_needs_a_layer_says_so() -> None:
    with pytest.raises(ValueError, match="needs a TTT layer"):
        configure(CONFIG.replace(ttt=None, recall=False), Arm("place", "hf"))


def test_table_prints_every_arm() -> None:
    table = bytes_table(CONFIG, MAIN_ARMS)
    assert len(table.splitlines()) == len(MAIN_ARMS) + 2
    assert "place, TTT_HF, recall" in table
