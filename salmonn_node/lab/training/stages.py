"""Training stages in order. Each writes its files to the work folder; a stage whose files exist is skipped."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from salmonn_node.lab.training import (
    audio,
    bank,
    event_confidence,
    event_heads,
    event_parts,
    event_scores,
    language,
    loop,
    memory,
    plans,
    question_head,
    recall,
    scaling,
    vision,
)
from salmonn_node.lab.training.language import Batches
from salmonn_node.lab.training.lessons import Lesson, thinned
from salmonn_node.lab.training.loop import Figures
from salmonn_node.lab.training.packing import Packed
from salmonn_node.lab.training.streams import Bank, Tokens, encode, read_bank
from salmonn_node.lab.training.work import REHEARSED_STEPS, Work
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.model.event_parts import EVENT_HEADS, EVENT_NAMES, QUESTION_HEAD, EventParts
from salmonn_node.model.network import Network
from salmonn_node.model.sound import MelFrontEnd
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

LESSON_PLANS, RECALL_PLANS, HELD_OUT_PLANS = 6_500, 900, 300
MEMORY_STREAMS, LONG_STREAMS, HELD_OUT_STREAMS = 240, 480, 8
EVENT_SOUNDS = 14
HELD_OUT_SEED = 700_000
GATES = {"shape": 0.90, "sounds": 0.95, "answerable_hit": 0.85}
Lines = Iterator[Figures]


class GateError(RuntimeError):
    """A stage did not reach the score that the next stage needs."""


def render(work: Work) -> Lines:
    """Render 38 400 training frames, and worlds for calibration and scoring. Needs OpenGL."""
    for worlds in (work.train, work.calibrate, work.held_out):
        yield {f"{worlds.name}_shards": float(bank.render(work.folder, worlds))}


def see(work: Work) -> Lines:
    """Train the vision tower. Gate A: shapes in held-out flats, including unseen colour-shape pairs."""
    data = vision.patch_set(bank.shards(work.folder, work.train))
    held = vision.patch_set(work.shards(work.held_out, 8))
    parts = vision.modules(work.network())

    def batches(step: int) -> vision.PatchBatch:
        rng = np.random.default_rng([vision.PLAN.seed, step])
        return vision.batch_of(data, rng.integers(0, len(data), vision.BATCH), rng)

    def held_out() -> Figures:
        return vision.scores(parts, held, 1600)

    yield from _gated(
        work,
        loop.run(
            work.plan(vision.PLAN), parts, batches, lambda b: vision.loss_of(parts, b), work.states, held_out, 250
        ),
        "shape",
    )


def hear(work: Work) -> Lines:
    """Train the audio tower. Gate A: sounds of held-out worlds."""
    assert work.config.audio is not None
    front_end, window_s = MelFrontEnd(work.config.audio), work.config.audio.window_s
    rendered = audio.shard_sounds(work.shards(work.train, 20))
    worlds = itertools.chain(audio.noisy_worlds(audio.EXTRA_FIRST, work.count(audio.EXTRA_COUNT)), rendered)
    data = audio.sound_set(worlds, front_end)
    held = audio.sound_set(audio.noisy_worlds(audio.HELD_OUT_FIRST, work.count(audio.HELD_OUT_COUNT)), front_end)
    parts = audio.modules(work.network())
    yield from _gated(
        work,
        loop.run(
            work.plan(audio.PLAN), parts, lambda step: audio.batch_of(data, window_s, np.random.default_rng([7, step])),
            lambda b: audio.loss_of(parts, b), work.states, lambda: audio.scores(parts, held, window_s), 250,
        ),
        "sounds",
    )  # fmt: skip


def _gated(work: Work, lines: Lines, name: str) -> Lines:
    reached = None
    for line in lines:
        reached = line.get(f"held_out_{name}", reached)
        yield line
    if reached is not None and reached < GATES[name] and not work.rehearsal:
        raise GateError(f"{name} is {reached:.3f} on held-out worlds, {GATES[name]} is needed")


def encoded(work: Work) -> Lines:
    """Encode all worlds once, with outputs scaled to the size of word embeddings."""
    network = work.network("vision", "audio").eval()
    if not (work.states / "encoders.pt").exists():
        factors = scaling.scale_outputs(network, [encode(network, s) for s in work.shards(work.train, 2)])
        assert network.audio is not None
        state = {"vision": network.vision.state_dict(), "audio": network.audio.state_dict()}
        torch.save(state, work.states / "encoders.pt")
        yield factors
    network = work.network("encoders").eval()
    for worlds in (work.held_out, work.calibrate, work.train):
        mine = worlds is work.train
        found = read_bank(work.folder, worlds, network, twice=mine, moved=mine)
        yield {f"{worlds.name}_streams": float(len(found.streams))}


def tell_apart(work: Work) -> Lines:
    """Read-outs that tell events apart, for the discard rule `events`."""
    path = work.states / Path(EVENT_HEADS).name
    if not path.exists():
        network = work.network("encoders").eval()
        assert work.config.audio is not None
        front_end = MelFrontEnd(work.config.audio)
        worlds = audio.noisy_worlds(audio.EXTRA_FIRST, work.count(EVENT_SOUNDS))
        with torch.no_grad():
            heard = [(audio.features(network, samples, front_end), sounds) for samples, sounds in worlds]
        event_heads.fit(read_bank(work.folder, work.train, network).streams, heard).save(path)
    yield event_scores.scores(EventHeads.load(path), work.bank(work.held_out).streams)


def answer_from_events(work: Work) -> Lines:
    """Names of events and the head that reads questions, for answers from the event memory."""
    paths = [work.states / Path(name).name for name in (EVENT_NAMES, QUESTION_HEAD)]
    if all(path.exists() for path in paths):
        return
    network = work.network("encoders", "further").eval()
    hours = _flats(work, network, bank.HOURS_SPARSE, bank.HOURS_DENSE)
    others = _flats(work, network, bank.CONFIDENCE_DENSE, bank.CONFIDENCE_SPARSE)
    heads = EventHeads.load(work.states / Path(EVENT_HEADS).name)
    model = VideoSalmonnS(work.config, network, work.tokenizer, CheckpointInfo("training", "tiny", trained=True))
    steps = REHEARSED_STEPS if work.rehearsal else question_head.STEPS
    parts: EventParts | None = None
    streams, most = work.bank(work.train).streams, work.count(event_confidence.QUESTIONS)
    for fitted, figures in event_parts.fit(model, heads, streams, hours, others, steps=steps, most=most):
        parts = fitted
        yield figures
    assert parts is not None
    parts.names.save(paths[0])
    parts.questions.save(paths[1])


def _flats(work: Work, network: Network, *sets: bank.WorldSet) -> list[Tokens]:
    """Render and encode worlds of hours; one of minutes for each set in a rehearsal."""
    found: list[Tokens] = []
    for whole in sets:
        worlds = replace(whole, seconds=bank.SECONDS, count=1) if work.rehearsal else whole
        bank.render(work.folder, worlds)
        found += read_bank(work.folder, worlds, network).streams
    return found


def planned(work: Work) -> Lines:
    """Plan which streams to compose and what to ask."""
    for worlds, name, first, count, seed, questions, lengths in (
        (work.train, "train", 0, work.count(LESSON_PLANS), 0, plans.QUESTIONS, plans.LENGTHS),
        (work.held_out, "held_out", 0, work.count(HELD_OUT_PLANS), HELD_OUT_SEED, 12, plans.LENGTHS),
        (work.train, "recall", 50_000, work.count(RECALL_PLANS), 0, 24, plans.RECALL_LENGTHS),
        (work.held_out, "recall_held", 0, work.count(150), HELD_OUT_SEED, 24, plans.RECALL_LENGTHS),
    ):
        path = work.folder / "plans" / f"{name}.jsonl"
        if not path.exists():
            truths, pieces = work.truths(worlds)
            numbers = range(first, first + count)
            plans.write_plans(path, (plans.plan(i, truths, pieces, questions, seed, lengths) for i in numbers))
        yield {f"{name}_plans": float(count)}


def speak(work: Work) -> Lines:
    """Train language model and evidence head on streams that fit the memory."""
    network = work.network("encoders")
    read = plans.read_plans(work.folder / "plans/train.jsonl")
    batches = Batches(read, work.bank(work.train), network, work.tokenizer)
    held = held_out_lessons(work, network, work.bank(work.held_out))
    network.train()
    yield from loop.run(
        work.plan(language.PLAN), language.modules(network), batches, lambda b: language.loss_of(network, b),
        work.states, lambda: language.summary(language.by_kind(network, held)), 200,
    )  # fmt: skip


def held_out_lessons(work: Work, network: Network, held: Bank, count: int = 80) -> list[Lesson]:
    """Make lessons of whole short streams of held-out worlds."""
    read = plans.read_plans(work.folder / "plans/held_out.jsonl")[:count]
    return [language.planned(p, held, network, work.tokenizer) for p in read]


def held_out_memories(work: Work, held: Bank) -> list[Lesson]:
    """Make lessons of memories after minutes and hours of held-out worlds."""
    numbers = range(HELD_OUT_SEED, HELD_OUT_SEED + work.count(HELD_OUT_STREAMS))
    stored = work.stored("held_out_memories", held, numbers, memory.LONG_SPAN_S)
    return [memory.restored(s, held, work.tokenizer, work.config) for s in stored]


def remember(work: Work) -> Lines:
    """Train the language model on memories of minutes. Gate B: evidence on held-out worlds."""
    train, network = work.bank(work.train), work.network("encoders", "language")
    stored = work.stored("memory", train, range(work.count(MEMORY_STREAMS)), memory.SPAN_S)
    short = Batches(plans.read_plans(work.folder / "plans/train.jsonl"), train, network, work.tokenizer)

    def bring_back(lesson: memory.StoredLesson, rng: np.random.Generator) -> Lesson:
        return memory.restored(lesson, train, work.tokenizer, work.config, rng)

    yield from _reading(work, memory.PLAN, network, memory.MixedBatches(short, stored, bring_back))


def read_on(work: Work) -> Lines:
    """Continue with memories of hours, mirrored worlds, and half of the lessons thinned."""
    train, network = work.bank(work.train, twice=True, moved=True), work.network("encoders", "memory")
    numbers = range(MEMORY_STREAMS, MEMORY_STREAMS + work.count(LONG_STREAMS))
    stored = work.stored("long", train, numbers, memory.LONG_SPAN_S)
    stored += work.stored("memory", train, range(work.count(MEMORY_STREAMS)), memory.SPAN_S)
    read = plans.read_plans(work.folder / "plans/train.jsonl")
    read += [plan.mirrored(work.train.count) for plan in read]

    def thinner(lesson: Lesson, rng: np.random.Generator) -> Lesson:
        if rng.random() >= memory.THINNED:
            return lesson
        return thinned(lesson, rng.uniform(0.0, memory.THINNEST), work.tokenizer, rng)

    short = Batches(read, train, network, work.tokenizer, change=thinner)

    def bring_back(lesson: memory.StoredLesson, rng: np.random.Generator) -> Lesson:
        return thinner(memory.restored(lesson, train, work.tokenizer, work.config, rng), rng)

    batches = memory.MixedBatches(short, stored, bring_back)
    yield from _reading(work, memory.FURTHER, network, batches, language.WEIGHTS)


def _reading(
    work: Work,
    plan: loop.Plan,
    network: Network,
    batches: Callable[[int], Packed],
    weights: Mapping[str, float] | None = None,
) -> Lines:
    bank_held = work.bank(work.held_out)
    held = held_out_lessons(work, network, bank_held)
    hours = held_out_memories(work, bank_held)

    def loss_of(batch: Packed) -> tuple[torch.Tensor, Figures]:
        return language.loss_of(network, batch, weights=weights)

    def held_out() -> Figures:
        long = language.summary(language.by_kind(network, hours))
        return language.summary(language.by_kind(network, held)) | {f"long_{k}": v for k, v in long.items()}

    network.train()
    lines = loop.run(work.plan(plan), language.modules(network), batches, loss_of, work.states, held_out, 500)
    yield from _gated(work, lines, "answerable_hit")


def hold(work: Work) -> Lines:
    """Train the fast weights and their query. Everything else is frozen."""
    network = work.network("encoders", "further")
    recall.freeze_all_but(network)
    train, held = work.bank(work.train), work.bank(work.held_out)
    read = sorted(plans.read_plans(work.folder / "plans/recall.jsonl"), key=lambda p: p.seconds)
    unseen = sorted(plans.read_plans(work.folder / "plans/recall_held.jsonl"), key=lambda p: p.seconds)
    trainer = recall.RecallTrainer(network, read, unseen, train, held, work.tokenizer, work.seed)
    network.eval()
    yield from loop.run(
        replace(work.plan(recall.PLAN), seed=work.seed), recall.modules(network), trainer.batch, trainer.loss,
        work.states, trainer.held_out, 250,
    )  # fmt: skip


STAGES: dict[str, Callable[[Work], Lines]] = {
    "render": render,
    "vision": see,
    "audio": hear,
    "encode": encoded,
    "events": tell_apart,
    "plan": planned,
    "language": speak,
    "memory": remember,
    "further": read_on,
    "answers": answer_from_events,
    "recall": hold,
}
