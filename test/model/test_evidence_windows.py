"""Evidence of a network without an evidence head: masked readings over the cached memory against whole readings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn_node.model.assembly import embed_prompt, question_ids
from salmonn_node.model.chat_format import ChatFormat
from salmonn_node.model.config import MemoryConfig, ReaderConfig
from salmonn_node.model.evidence_windows import (
    Rereading,
    can_reread,
    grounded,
    log_likelihoods,
    question_row,
    windows_of,
)
from salmonn_node.model.language import PromptTokens
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

QUESTION, ANSWER = "where is the cup?", "in the hall"
CHAT = ChatFormat(shown="Does the video show {question}")


def headless(**changes: object) -> VideoSalmonnS:
    return VideoSalmonnS.tiny(evidence_head=False, recall=False, chat=CHAT, **changes)


def filled(model: VideoSalmonnS, seconds: int = 12):
    memory, rng = model.new_memory(), np.random.default_rng(0)
    for t in range(seconds):
        image = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        model.observe_frame(memory, Frame((t + 1) * SECOND_NS, "front", image))
    sound = rng.normal(0, 0.1, 16_000 * 6).astype(np.float32)
    model.observe_audio(memory, AudioSpan(SECOND_NS, "mic", sound))
    return model.view(memory)


def ids_of(model: VideoSalmonnS, text: str) -> list[int]:
    return [*model.tokenizer.encode(text), model.tokenizer.specials.im_end]


@pytest.mark.parametrize("prefill", ["exact", "cached"])
def test_with_everything_readable_it_is_the_plain_likelihood(prefill: str) -> None:
    model = headless(prefill=prefill, cached_chunk=32)
    decoder = model.answers.read(QUESTION, filled(model))
    answers = [ids_of(model, text) for text in (ANSWER, "yes")]
    want = decoder.score(answers)
    everything = torch.ones(len(decoder.view), dtype=torch.bool)
    question = question_ids(QUESTION, model.tokenizer, model.config)
    assert question == decoder.prompt.ids[question_row(decoder) :].tolist()
    rereadings = [Rereading(question, ids, everything) for ids in answers]
    torch.testing.assert_close(log_likelihoods(decoder, rereadings), want, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(decoder.score(answers), want, atol=0, rtol=0)


@pytest.mark.parametrize("chunk", [1024, 40])
def test_a_window_alone_equals_one_whole_reading_with_the_rest_hidden(chunk: int) -> None:
    model = headless(prefill_chunk=chunk)
    decoder = model.answers.read(QUESTION, filled(model))
    prompt, language, answer = decoder.prompt, model.network.language, ids_of(model, ANSWER)
    first, window = question_row(decoder), windows_of(decoder.view)
    question = prompt.ids[first:].tolist()
    readable = [window == number for number in window.unique().tolist()] + [torch.zeros_like(window, dtype=torch.bool)]
    got = log_likelihoods(decoder, [Rereading(question, answer, tokens) for tokens in readable])
    memory = embed_prompt(prompt, decoder.view, language)
    more = torch.tensor(answer[:-1])
    at = (prompt.next_position + torch.arange(len(more))).expand(3, -1)
    extra = PromptTokens(language.embed(more), at, torch.zeros(len(more), dtype=torch.bool))
    tokens = PromptTokens.cat(memory, extra)
    for tokens_readable, value in zip(readable, got.tolist(), strict=True):
        mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        hidden_rows = ((prompt.memory >= 0) & ~tokens_readable[prompt.memory]).nonzero()[:, 0]
        mask[first:, hidden_rows] = False
        with torch.no_grad():
            hidden = language(tokens, None, mask=mask[None, None])
            scores = torch.log_softmax(language.logits(hidden[len(prompt) - 1 :]), dim=-1)
        want = float(scores.gather(1, torch.tensor(answer)[:, None]).sum())
        assert value == pytest.approx(want, abs=2e-4)


def test_an_answer_carries_weights_of_windows_and_whether_it_is_shown() -> None:
    model = headless()
    view = filled(model)
    plain = model.answer(QUESTION, view, max_new_tokens=4)
    again = model.answer(QUESTION, view, max_new_tokens=4, shown=CHAT.asks_whether_shown(QUESTION), options=("a", "b"))
    assert again.token_ids == plain.token_ids
    assert plain.shown is None
    assert 0.0 < again.shown < 1.0
    for generation in (plain, again):
        assert float(generation.grounded.sum()) == pytest.approx(1.0, abs=1e-4)
        assert bool((generation.grounded >= 0).all())


def test_one_window_of_all_takes_the_weight_when_it_alone_makes_the_answer_likely() -> None:
    model = headless()
    decoder = model.answers.read(QUESTION, filled(model))
    attention = torch.full((len(decoder.view),), 1.0 / len(decoder.view))
    weights = grounded(decoder, attention, ids_of(model, ANSWER))
    window = windows_of(decoder.view)
    numbers, place = window.unique(return_inverse=True)
    question = decoder.prompt.ids[question_row(decoder) :].tolist()
    scores = log_likelihoods(decoder, [Rereading(question, ids_of(model, ANSWER), window == n) for n in numbers])
    shares = torch.zeros(len(numbers)).index_add_(0, place, weights)
    assert int(shares.argmax()) == int(scores.argmax())


def test_networks_with_a_head_and_the_reader_are_left_alone() -> None:
    with_head = VideoSalmonnS.tiny(chat=CHAT)
    answer = with_head.answer(QUESTION, filled(with_head), max_new_tokens=2, shown="Does it?")
    assert (answer.grounded, answer.shown) == (None, None)
    selective = headless(reader=ReaderConfig(20, 64), memory=MemoryConfig(4096, 4096, 64, 64, "place", "merge"))
    view = filled(selective)
    assert not can_reread(selective.answers.read(QUESTION, view))
    assert selective.answer(QUESTION, view, max_new_tokens=2).grounded is None
    empty = selective.view(selective.new_memory())
    assert selective.answer(QUESTION, empty, max_new_tokens=1).grounded is None
