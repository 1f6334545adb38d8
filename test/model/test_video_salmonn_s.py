"""The network as a stream: what questions see, that they change nothing, and that cuts of the stream do not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

START_NS = 1_000 * SECOND_NS


@pytest.fixture(scope="module")
def model():
    return VideoSalmonnS.tiny()


def frames(count: int, seed: int = 0, source: str = "front", size: tuple[int, int] = (96, 160)) -> list[Frame]:
    rng = np.random.default_rng(seed)
    return [
        Frame(START_NS + i * SECOND_NS, source, rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for i in range(count)
    ]


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)


def filled(model, seconds: int = 33, chunk: int = 16_000) -> StreamMemory:
    memory = model.new_memory()
    samples = sound(seconds)
    pieces = [
        AudioSpan(START_NS + i * SECOND_NS // 16_000, "mic", samples[i : i + chunk])
        for i in range(0, len(samples), chunk)
    ]
    for frame in frames(seconds):
        while pieces and pieces[0].start_ns <= frame.stamp_ns:
            model.observe_audio(memory, pieces.pop(0))
        model.observe_frame(memory, frame)
    for piece in pieces:
        model.observe_audio(memory, piece)
    return memory


def test_untrained_network_says_so(model):
    assert not model.checkpoint.trained
    assert "untrained" in model.checkpoint.name


def test_asking_changes_nothing(model):
    memory = filled(model)
    before, meta = memory.to_tensors()
    view = model.view(memory)
    assert not bool(view.visual_committed.all()), "the unpaired frame is seen"
    assert not bool(view.audio_committed.all()), "sound of the window that is not full is heard"
    answers = [model.answer("where is the red box?", model.view(memory), max_new_tokens=6) for _ in range(2)]
    assert answers[0].token_logprobs == answers[1].token_logprobs
    after, meta_after = memory.to_tensors()
    assert meta == meta_after
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("chunk", [1_600, 7_777, 160_000])
def test_cut_of_the_sound_makes_no_difference(model, chunk):
    want, _ = filled(model, chunk=16_000).to_tensors()
    got, _ = filled(model, chunk=chunk).to_tensors()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_state_survives_a_restart(model):
    memory = filled(model)
    copy = StreamMemory.from_tensors(*memory.to_tensors(), model.network.ttt)
    for m in (memory, copy):
        for frame in frames(9, seed=3):
            model.observe_frame(m, Frame(frame.stamp_ns + 100 * SECOND_NS, "front", frame.image))
    want = model.answer("what did you see?", model.view(memory), max_new_tokens=4)
    got = model.answer("what did you see?", model.view(copy), max_new_tokens=4)
    assert got.token_logprobs == want.token_logprobs
    assert torch.equal(got.attention, want.attention)


def test_committed_moments_name_their_tokens(model):
    memory = model.new_memory()
    moments = [m for frame in frames(4) for m in model.observe_frame(memory, frame)]
    assert [(m.token_start, m.token_end) for m in moments] == [(0, 15), (15, 30)]
    assert moments[1].interval.start_ns == START_NS + 2 * SECOND_NS
    assert moments[1].interval.end_ns == START_NS + 3 * SECOND_NS


def test_bad_input_is_refused_and_changes_nothing(model):
    memory = filled(model, seconds=4)
    before, _ = memory.to_tensors()
    with pytest.raises(ValueError, match="image"):
        model.observe_frame(memory, Frame(START_NS + 99 * SECOND_NS, "front", np.zeros((4, 4), np.uint8)))
    with pytest.raises(ValueError, match="samples"):
        model.observe_audio(memory, AudioSpan(START_NS + 99 * SECOND_NS, "mic", np.array([np.nan], np.float32)))
    with pytest.raises(ValueError, match="start_ns"):
        model.observe_audio(memory, AudioSpan(START_NS, "mic", sound(1)))
    after, _ = memory.to_tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_attention_and_pointer_cover_the_view(model):
    view = model.view(filled(model))
    answer = model.answer("when did the bell ring?", view, max_new_tokens=3)
    assert answer.attention.shape == answer.pointer.shape == (len(view),)
    assert 0 < float(answer.attention.sum()) < 1, "text takes the rest of the attention"
    assert float(answer.pointer.sum()) + answer.null_weight == pytest.approx(1, abs=1e-5)


def test_a_window_of_the_view_and_an_empty_memory(model):
    memory = filled(model)
    view = model.view(memory, after_ns=START_NS + 20 * SECOND_NS, sources=("front",))
    assert view.audio is None
    assert int(view.visual.stamp_ns.min()) >= START_NS + 20 * SECOND_NS
    assert model.answer("and now?", view, max_new_tokens=2).attention.shape == (len(view),)
    assert model.answer("hello?", model.view(model.new_memory()), max_new_tokens=2).attention.shape == (0,)


def test_score_agrees_with_greedy_decoding(model):
    view = model.view(filled(model, seconds=6))
    scores = model.score("is the door open?", ["yes", "no", "maybe so"], view)
    assert scores.shape == (3,)
    alone = torch.cat([model.score("is the door open?", [o], view) for o in ("yes", "no", "maybe so")])
    assert torch.allclose(scores, alone, atol=1e-5)


def test_should_stop_ends_the_answer(model):
    view = model.view(filled(model, seconds=6))
    calls = iter([False, False, True])
    answer = model.answer("tell me", view, max_new_tokens=9, should_stop=lambda: next(calls))
    assert answer.stopped
    assert len(answer.token_ids) == 2


def test_several_cameras_share_the_timeline(model):
    memory = model.new_memory()
    for front, back in zip(frames(6), frames(6, seed=1, source="back", size=(64, 64)), strict=True):
        model.observe_frame(memory, front)
        model.observe_frame(memory, back)
    view = model.view(memory)
    marks = [block.mark for block in view.blocks]
    assert marks[-2:] == ["<front 4.5 seconds>", "<back 4.5 seconds>"]
    starts = [block.start_ns for block in view.blocks]
    assert starts == sorted(starts)
    assert model.answer("what is behind you?", view, max_new_tokens=2).token_ids


def test_a_gap_ends_a_patch_and_a_window(model):
    memory = model.new_memory()
    early, late = frames(1)[0], frames(1, seed=2)[0]
    model.observe_frame(memory, early)
    moments = model.observe_frame(memory, Frame(late.stamp_ns + 60 * SECOND_NS, "front", late.image))
    assert [m.interval.duration_s for m in moments] == [0.0]
    model.observe_audio(memory, AudioSpan(START_NS, "mic", sound(3.2)))
    heard = model.observe_audio(memory, AudioSpan(START_NS + 60 * SECOND_NS, "mic", sound(1)))
    assert sum(m.token_end - m.token_start for m in heard) == 7
