"""The observer: same stream, same memory, whatever the cutting and the threads; what is refused is counted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from salmonn_node.answering.answerer import Answerer
from salmonn_node.ingest.observer import Observer
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import Answer, Question
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import AudioChunk, EncodedFrame, Frame, Pose

START = 1_700_000_000 * S


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    return VideoSalmonnS.tiny()


def frame(t: float, source: str = "front", start: int = START) -> Frame:
    rng = np.random.default_rng(int(t * 1000) % 2**32)
    return Frame(start + round(t * S), source, rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), "front_optical")


def chunk(t: float, seconds: float, start: int = START) -> AudioChunk:
    first = round(t * 16_000)
    n = np.arange(first, first + round(seconds * 16_000))
    samples = (0.3 * np.sin(n * 0.07)).astype(np.float32)[:, None]
    return AudioChunk(start + first * S // 16_000, "mic", samples, 16_000, "mic_link")


def pose(t: float, start: int = START) -> Pose:
    return Pose(start + round(t * S), "map", np.array([t, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]), None, "home")


def stream(seconds: int, chunk_s: float = 0.1, start: int = START) -> Iterator[Frame | AudioChunk | Pose]:
    """Frames at 4 Hz, poses at 10 Hz, sound in chunks; in order of stamps."""
    items: list[tuple[float, int, Frame | AudioChunk | Pose]] = []
    items += [(i / 4, 1, frame(i / 4, start=start)) for i in range(seconds * 4)]
    items += [(i / 10, 0, pose(i / 10, start)) for i in range(seconds * 10)]
    items += [(i * chunk_s, 2, chunk(i * chunk_s, chunk_s, start)) for i in range(round(seconds / chunk_s))]
    return (item for _, _, item in sorted(items, key=lambda entry: entry[:2]))


def state(observer: Observer) -> dict[str, torch.Tensor]:
    return observer.memory.to_tensors()[0]


def same(one: Observer, two: Observer) -> bool:
    a, b = state(one), state(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_threads_and_cutting_do_not_change_a_bit_of_memory(model: VideoSalmonnS) -> None:
    inline = Observer(model, inline=True)
    assert {inline.submit(item) for item in stream(24)} == {"taken", "not_sampled"}
    threaded = Observer(model)
    for item in stream(24, chunk_s=0.4):
        assert threaded.submit(item) in ("queued", "not_sampled")
    assert threaded.drain(time.monotonic() + 60)
    assert same(inline, threaded)
    status = threaded.status()
    threaded.close()
    assert (status.frames, status.poses) == (24, 240)
    assert status.audio_s == pytest.approx(24, abs=0.2)
    assert status.drops == {"not_sampled": 72}
    assert status.tokens[0] > 0
    assert status.tokens[1] > 0


def test_what_is_recorded_makes_the_same_memory_again(model: VideoSalmonnS) -> None:
    recorded: list = []
    observer = Observer(model, inline=True, record=recorded.append)
    for item in stream(12):
        observer.submit(item)
    memory = model.new_memory()
    for item in recorded:
        if isinstance(item, Frame):
            model.observe_frame(memory, item)
        elif not isinstance(item, Pose):
            model.observe_audio(memory, item)
    again = memory.to_tensors()[0]
    assert all(torch.equal(value, again[name]) for name, value in state(observer).items() if "table" not in name)


def test_sources_come_back_with_the_memory(model: VideoSalmonnS) -> None:
    recorded: list = []
    observer = Observer(model, inline=True, record=recorded.append)
    for item in stream(6):
        observer.submit(item)
    snapshot, journal = Observer(model, inline=True), Observer(model, inline=True)
    with observer.still():
        snapshot.restore(*observer.to_state())
    for item in recorded:
        journal.retake(item)
    for again in (snapshot, journal):
        assert set(again.source_names) == {"front", "mic"}
        assert again.complete_ns == again.newest_ns > 0, "a watch on the past finds it complete"


def test_a_backward_jump_starts_an_empty_memory(model: VideoSalmonnS) -> None:
    ended: list[tuple[int, int]] = []

    def on_session(number: int, old: object) -> None:
        ended.append((number, old.counters["visual_patches"]))

    observer = Observer(model, inline=True, on_session=on_session)
    for item in stream(12):
        observer.submit(item)
    old = observer.memory
    first = observer.memory_id
    for item in stream(6):  # the bag starts again
        observer.submit(item)
    assert ended == [(1, 6)]
    assert observer.memory is not old
    assert observer.memory_id != first
    status = observer.status()
    assert status.start_ns <= START + S
    assert status.newest_ns < START + 6 * S
    # The first message of each source is taken for a stray one, and one more until the majority has jumped.
    assert status.drops["stamp_far_behind"] == 4
    assert all(m.interval.end_ns < START + 7 * S for m in observer.evidence.between())


@pytest.mark.parametrize("late_s", [0.0, 0.15, 0.6])
def test_the_pose_of_a_patchs_second_frame_does_not_depend_on_when_poses_come(
    model: VideoSalmonnS, late_s: float
) -> None:
    observer = Observer(model, inline=True)
    items = [(float(t), frame(float(t))) for t in range(8)]
    items += [(t / 5 + 0.07 + late_s, pose(t / 5 + 0.07)) for t in range(45)]
    for _, item in sorted(items, key=lambda pair: pair[0]):
        observer.submit(item)
    moments = observer.evidence.between(modality="vision")
    assert len(moments) == 4
    for moment in moments:
        for stamp_ns in (moment.interval.start_ns, moment.interval.end_ns):
            place = observer.evidence.pose_at(stamp_ns)
            assert place is not None
            seconds = (stamp_ns - START) / S
            if seconds > 0.07:
                np.testing.assert_allclose(place.position, pose(seconds).position, atol=1e-9)


def test_poses_of_moments_are_interpolated_even_when_they_come_late(model: VideoSalmonnS) -> None:
    observer = Observer(model, inline=True)
    for second in range(6):
        observer.submit(frame(second + 0.25))
    for second in range(8):
        observer.submit(pose(float(second)))
    moments = observer.evidence.between(modality="vision")
    assert len(moments) == 3
    for moment in moments:
        place = observer.evidence.pose(moment.pose_id)
        assert place is not None
        assert place.position[0] == pytest.approx((moment.interval.start_ns - START) / S)
        assert place.map_id == "home"
        assert moment.frame_id == "front_optical"
        assert moment.thumbnail[:2] == b"\xff\xd8"


def test_refusals_are_counted_by_reason_and_the_stream_goes_on(model: VideoSalmonnS) -> None:
    def damaged() -> np.ndarray:
        raise ValueError("damaged")

    observer = Observer(model, inline=True)
    assert observer.submit(frame(1.0)) == "taken"
    assert observer.submit(frame(0.5)) == "stamp_out_of_order"
    assert observer.submit(Frame(0, "front", frame(0.0).image)) == "stamp_zero"
    assert observer.submit(EncodedFrame(START + 2 * S, "front", damaged)) == "image_undecodable"
    bad = AudioChunk(START + S, "mic", np.full((160, 1), np.nan, np.float32))
    assert observer.submit(bad) == "audio_not_finite"
    observer.refuse("rear", "image_bad_step")
    assert observer.submit(frame(3.0)) == "taken"
    drops = observer.status().drops
    assert drops == {
        "stamp_out_of_order": 1, "stamp_zero": 1, "image_undecodable": 1, "audio_not_finite": 1, "image_bad_step": 1
    }  # fmt: skip


class Slow:
    """A network whose encoder waits for a gate, around the real one."""

    def __init__(self, model: VideoSalmonnS) -> None:
        self.model, self.gate, self.fail = model, threading.Event(), False

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def observe_frame(self, *arguments: object) -> list:
        assert self.gate.wait(30)
        if self.fail:
            raise RuntimeError("the encoder failed")
        return self.model.observe_frame(*arguments)


def test_a_full_queue_drops_and_says_so(model: VideoSalmonnS) -> None:
    slow = Slow(model)
    observer = Observer(slow, capacity={"frame": 2})
    admissions = [observer.submit(frame(float(t))) for t in range(1, 8)]
    assert admissions.count("queue_full") >= 4
    assert observer.status().drops["queue_full"] == admissions.count("queue_full")
    slow.gate.set()
    assert observer.drain(time.monotonic() + 30)
    assert observer.status().frames == admissions.count("queued")
    observer.close()


def test_one_failure_of_the_network_does_not_end_the_stream(model: VideoSalmonnS) -> None:
    slow = Slow(model)
    slow.gate.set()
    slow.fail = True
    observer = Observer(slow, inline=True)
    assert observer.submit(frame(1.0)) == "encode_failed"
    slow.fail = False
    assert observer.submit(frame(2.0)) == "taken"
    assert observer.status().drops == {"encode_failed": 1}


def test_a_view_request_waits_for_each_source_and_no_longer_than_the_deadline(model: VideoSalmonnS) -> None:
    observer = Observer(model)
    for t in range(5):
        observer.submit(frame(float(t)))
        observer.submit(pose(float(t)))
    assert observer.wait_for_view(before_ns=START + 6 * S, deadline=time.monotonic() + 0.05) is None
    reached: list[object] = []
    waiter = threading.Thread(
        target=lambda: reached.append(observer.wait_for_view(before_ns=START + 6 * S, deadline=time.monotonic() + 30))
    )
    waiter.start()
    for t in (5, 6):
        observer.submit(frame(float(t)))
        observer.submit(pose(float(t)))
    waiter.join(30)
    assert reached != [None]
    observer.drain(time.monotonic() + 30)
    assert observer.status().frames == 7
    cancel = threading.Event()
    cancel.set()
    assert observer.wait_for_view(before_ns=START + 99 * S, deadline=time.monotonic() + 30, cancel=cancel) is None
    observer.close()


def test_a_view_request_sees_the_same_whichever_source_arrives_first(model: VideoSalmonnS) -> None:
    views = []
    for first in (frame, pose):
        second = pose if first is frame else frame
        observer = Observer(model, inline=True)
        request = observer.request_view(before_ns=START + 5 * S // 2)
        for t in range(5):
            observer.submit(first(float(t)))
            observer.submit(second(float(t)))
        assert request.made
        assert observer.status().frames == 5  # what had to wait was taken in afterwards
        views.append(request.result())
    one, two = views
    assert torch.equal(one.visual.z, two.visual.z)
    assert torch.equal(one.visual.stamp_ns, two.visual.stamp_ns)
    assert int(one.visual.stamp_ns.max()) <= START + 5 * S // 2


def test_requests_for_one_window_at_one_moment_share_a_view(model: VideoSalmonnS) -> None:
    observer = Observer(model, inline=True)
    ends = [START + 5 * S // 2] * 3 + [START + 3 * S // 2, START + 5 * S // 2]
    requests = [observer.request_view(before_ns=end) for end in ends]
    for t in range(5):
        observer.submit(frame(float(t)))
    assert all(request.made for request in requests)
    views = [request.result() for request in requests]
    assert views[0] is views[1] is views[2] is views[4]
    assert views[3] is not views[0]
    later = observer.request_view(before_ns=START + 5 * S // 2)
    observer.submit(frame(5.0))
    assert later.result() is not views[0]
    assert observer.drain(time.monotonic() + 30)


def test_a_view_stays_as_it_was_while_the_stream_goes_on(model: VideoSalmonnS) -> None:
    observer = Observer(model)
    items = list(stream(16))
    for item in items[: len(items) // 2]:
        observer.submit(item)
    observer.drain()
    view = observer.view()
    before = view.visual.z.clone()
    for item in items[len(items) // 2 :]:
        observer.submit(item)
    observer.drain()
    assert torch.equal(view.visual.z, before)
    assert len(observer.view()) > len(view)
    observer.close()


def test_a_question_leaves_no_trace(model: VideoSalmonnS) -> None:
    quiet, asked = Observer(model, inline=True), Observer(model, inline=True)
    answerer = Answerer(asked, max_new_tokens=2)
    for number, item in enumerate(stream(13)):
        quiet.submit(item)
        asked.submit(item)
        if number % 40 == 20:
            answer = answerer.ask(Question("What is there?"), deadline=time.monotonic() + 60)
            assert all(e.pose is not None for e in answer.evidence)
    assert same(quiet, asked)
    assert quiet.evidence.digest() == asked.evidence.digest()


@pytest.mark.parametrize("until_s", [2.6, 5.0, 6.3])
def test_an_answer_does_not_depend_on_when_it_is_made(model: VideoSalmonnS, until_s: float) -> None:
    """Of the same view, at once or when the stream has gone on, whichever source arrives first."""
    answers = []
    # By stamp, or each second's poses last, as when their messages waited behind the others.
    by_stamp = list(stream(10))
    poses_last = sorted(by_stamp, key=lambda item: (item.stamp_ns // S, isinstance(item, Pose)))
    for items, at_once in ((by_stamp, True), (by_stamp, False), (poses_last, False)):
        observer = Observer(model, inline=True)
        answerer = Answerer(observer, max_new_tokens=2, max_evidence=20)
        request = observer.request_view(before_ns=START + round(until_s * S))
        question = Question("What is there?", before_ns=START + round(until_s * S))
        for item in items:
            observer.submit(item)
            if request.made and at_once:
                break
        view = request.result()
        answers.append(answerer.ask(question, deadline=time.monotonic() + 60, view=view))
    first, *others = (comparable(answer) for answer in answers)
    assert first["evidence"]
    assert all(other == first for other in others)


def comparable(answer: Answer) -> dict[str, object]:
    """All of an answer but how far the stream had got when it was made."""
    kept = {name: value for name, value in vars(answer).items() if name not in ("latency_s", "last_observation_ns")}
    kept["evidence"] = [
        (e.interval, e.source, e.score, e.frame_id, e.pose and (e.pose.stamp_ns, tuple(e.pose.position)))
        for e in answer.evidence
    ]
    kept["pose"] = answer.pose and (answer.pose.stamp_ns, tuple(answer.pose.position))
    return kept


def test_what_comes_after_its_view_is_counted(model: VideoSalmonnS) -> None:
    observer = Observer(model, inline=True)
    request = observer.request_view(before_ns=START + 2 * S)
    observer.submit(pose(1.0))
    for t in range(6):
        observer.submit(frame(float(t)))
    assert request.made, "a source that lags two seconds is not waited for"
    observer.submit(pose(1.5))
    observer.submit(pose(5.0))
    late = {name: source.late for name, source in observer.status().sources.items()}
    assert late == {"front": 0, "pose": 1}


def test_a_source_that_is_still_heard_is_waited_for(model: VideoSalmonnS) -> None:
    """A second of pictures arrives before the sound of it, as from a full queue: no view is made without the sound."""
    observer = Observer(model)
    request = observer.request_view(before_ns=START + 2 * S)
    observer.submit(chunk(0.0, 0.1))
    for t in range(8):
        observer.submit(frame(float(t)))
    observer.drain(time.monotonic() + 30)
    assert not request.made
    for number in range(1, 40):
        observer.submit(chunk(number / 10, 0.1))
    assert request.done.wait(30)
    assert sum(source.late for source in observer.status().sources.values()) == 0
    heard = request.result().audio
    assert int(heard.stamp_ns.max()) >= START + 3 * S // 2
    observer.close()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="not shown here: Linux alone has this policy")
def test_the_worker_does_not_push_its_waker_off_a_core(model: VideoSalmonnS) -> None:
    policies: list[int] = []
    before = os.sched_getscheduler(0)
    observer = Observer(model, record=lambda _: policies.append(os.sched_getscheduler(0)))
    try:
        observer.submit(frame(0.0))
        assert observer.drain(time.monotonic() + 60.0)
    finally:
        observer.close()
    assert policies == [os.SCHED_BATCH if before == os.SCHED_OTHER else before]
    assert os.sched_getscheduler(0) == before, "whoever submits is left as it was"
