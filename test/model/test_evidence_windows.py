"""Evidence of a network without an evidence head: masked readings over the cached memory against whole readings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn_node.model.assembly import embed_prompt, question_ids
from salmonn_node.model.chat_format import ChatFormat
from salmonn_node.model.config import MemoryConfig, ReaderConfig
from salmonn_node.model.evidence_windows import (
    CANDIDATES,
    WINDOW_NS,
    Rereading,
    Windows,
    can_reread,
    log_likelihoods,
    question_row,
    sufficiencies,
    windows_of,
)
from salmonn_node.model.language import PromptTokens
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.model.windows_alone import affordable, part_of, sufficiencies_alone
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


def test_the_weight_of_a_window_is_its_attention_times_how_much_likelier_it_makes_the_answer() -> None:
    model = headless()
    decoder = model.answers.read(QUESTION, filled(model))
    attention = torch.full((len(decoder.view),), 1.0 / len(decoder.view))
    made = Windows.of(decoder.view, attention)
    compared = made.heaviest(CANDIDATES)
    weights = made.weights(compared, sufficiencies(decoder, made, compared, ids_of(model, ANSWER)))
    window = windows_of(decoder.view)
    numbers, place = window.unique(return_inverse=True)
    question = decoder.prompt.ids[question_row(decoder) :].tolist()
    scores = log_likelihoods(decoder, [Rereading(question, ids_of(model, ANSWER), window == n) for n in numbers])
    shares = torch.zeros(len(numbers)).index_add_(0, place, weights)
    prior = torch.zeros(len(numbers)).index_add_(0, place, attention)
    torch.testing.assert_close(shares, torch.softmax(scores + prior.log(), dim=0), atol=1e-4, rtol=1e-3)


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


@pytest.mark.parametrize(("head", "chunk"), [(False, 1024), (False, 60), (True, 1024)])
def test_a_window_alone_is_read_as_a_memory_that_holds_nothing_else(head: bool, chunk: int) -> None:
    model = VideoSalmonnS.tiny(evidence_head=head, recall=False, prefill_chunk=chunk)
    view, answer = filled(model), ids_of(model, ANSWER)
    decoder = model.answers.read(QUESTION, view)
    windows = Windows.of(view, torch.full((len(view),), 1.0 / len(view)))
    order = affordable(decoder, windows, answer)
    assert sorted(order.tolist()) == list(range(len(windows.mass))), "a short stream is compared whole"
    got = sufficiencies_alone(decoder, lambda part: model.prompt(QUESTION, part), windows, order, answer)
    memory_of = {int(n): (int(n) + int(windows_of(view).min())) * WINDOW_NS for n in order}
    nothing = model.score(QUESTION, [ANSWER], part_of(view, torch.zeros(len(view), dtype=torch.bool)))
    for n, value in zip(order.tolist(), got.tolist(), strict=True):
        alone = part_of(view, windows.tokens(n))
        stamps = torch.cat([batch.stamp_ns for batch in (alone.visual, alone.audio) if batch is not None])
        assert bool(((stamps >= memory_of[n]) & (stamps < memory_of[n] + WINDOW_NS)).all())
        assert value == pytest.approx(float(model.score(QUESTION, [ANSWER], alone) - nothing), abs=1e-4)


def test_windows_are_read_alone_only_while_there_is_time() -> None:
    model = headless(prefill_chunk=100)
    view = filled(model)
    hurried = model.answer(QUESTION, view, max_new_tokens=4)
    asked: list[float] = []
    plenty = model.answer(QUESTION, view, max_new_tokens=4, spare=lambda seconds: asked.append(seconds) or True)
    assert plenty.token_ids == hurried.token_ids
    assert plenty.sufficiency == pytest.approx(hurried.sufficiency, abs=1e-6)
    assert not torch.equal(plenty.grounded, hurried.grounded)
    assert asked[0] == 0.0
    assert all(seconds > 0.0 for seconds in asked[1:])
    turns = iter([True, True, False])
    short = model.answer(QUESTION, view, max_new_tokens=4, spare=lambda seconds: next(turns))
    assert torch.equal(short.grounded, hurried.grounded), "what was compared over the cache stays"
    assert next(turns, None) is None, "it stopped at the first refusal"
    cached = headless(prefill="cached", cached_chunk=32)
    unasked = cached.answer(QUESTION, filled(cached), max_new_tokens=4, spare=lambda seconds: pytest.fail("asked"))
    assert float(unasked.grounded.sum()) == pytest.approx(1.0, abs=1e-4)


def test_a_cancel_between_two_passes_ends_the_search_for_evidence() -> None:
    model = headless(prefill_chunk=40)
    view = filled(model)
    calls: list[int] = []
    whole = model.answer(QUESTION, view, max_new_tokens=2, should_stop=lambda: bool(calls.append(1)))
    assert not whole.stopped
    during = len(calls) - 3
    calls.clear()
    cut = model.answer(QUESTION, view, max_new_tokens=2, should_stop=lambda: calls.append(1) or len(calls) >= during)
    assert cut.stopped
    assert cut.grounded is None
    assert len(calls) <= during + 1


def test_chosen_heads_propose_the_windows() -> None:
    model = headless()
    view = filled(model)
    decoder = model.answers.read(QUESTION, view)
    by_head = decoder.attention_by_head()
    layers, heads = by_head.shape[:2]
    assert (layers, heads) == (model.config.text["num_hidden_layers"], model.config.text["num_attention_heads"])
    plain = model.answer(QUESTION, view, max_new_tokens=3)
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    torch.testing.assert_close(model.answer(QUESTION, view, max_new_tokens=3, heads=every).attention, plain.attention)
    two = model.answer(QUESTION, view, max_new_tokens=3, heads=((0, 1), (2, 0)))
    torch.testing.assert_close(two.attention, (by_head[0, 1] + by_head[2, 0]) / 2)
    assert two.text == plain.text, "heads propose evidence; they do not answer"


def test_figures_of_each_window_on_demand() -> None:
    model = headless()
    view = filled(model, 24)
    plain = model.answer(QUESTION, view, max_new_tokens=3)
    assert plain.windows is None
    scored = model.answer(QUESTION, view, max_new_tokens=3, scored_windows=10)
    found = scored.windows
    assert found is not None
    assert found.start_ns.tolist() == (windows_of(view).unique() * WINDOW_NS).tolist()
    windows = Windows.of(view, plain.attention)
    torch.testing.assert_close(found.attention.mean(dim=(0, 1)), windows.mass)
    assert int((~found.sufficiency.isnan()).sum()) == 10
    torch.testing.assert_close(scored.grounded, plain.grounded)
    assert scored.sufficiency == pytest.approx(plain.sufficiency, abs=1e-5), "signs are those of the first windows"
