"""Lessons: the memory of a stream, and questions with their answer texts and evidence tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.training.evidence_tokens import PATCH_TOKENS, TOKEN_NS, Stamps, evidence_rows
from salmonn_node.lab.training.sizes import GRID
from salmonn_node.lab.training.streams import CUT_S, Tokens
from salmonn_node.lab.training.wording import reworded
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.objects import SHAPES
from salmonn_node.lab.world.queries_of_sounds import UNITS
from salmonn_node.lab.world.truth import START_NS, Truth
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.assembly import Prompt, prompt_of
from salmonn_node.model.blocks import AudioRun
from salmonn_node.model.chat_format import ASSISTANT, END, ChatFormat
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.timeline import Timeline
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.stream.observations import SECOND_NS

UNKNOWN = "unknown"
# Kinds whose answer needs more than one piece of evidence.
JOINT = ("count", "order", "change", "state_now", "seen_when_heard", "what_was_said")
# Kinds that ask what came first. The pointer must find the earliest piece of evidence.
FIRST = ("order",)
# Number of questions per reading of a stream, sampled from more. Otherwise the network memorises answers.
AT_ONCE = 20
UNANSWERABLE = 0.5  # maximum ratio of unanswerable to answerable questions
# Kinds that are sampled more often: they are learned last, and the kept tokens contain their answers.
OFTEN = {
    "colour": 2.5, "order": 2.0, "count": 2.0, "seen_when_heard": 2.0, "what_was_said": 1.5, "state_now": 1.5,
    "state_earlier": 1.5, "change": 0.5,
}  # fmt: skip
AUDIO_WINDOW = 2 * CUT_S
CAMERA, MICROPHONE = 0, 1


@dataclass(frozen=True)
class Asked:
    """A question in a lesson.

    Attributes:
        text: the question.
        answer: text that the language model must write.
        kind: kind of question in the world.
        answerable: whether the stream contains the answer.
        evidence: rows of the view's tokens that show it. Empty if unanswerable.
    """

    text: str
    answer: str
    kind: str
    answerable: bool
    evidence: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Lesson:
    """The memory of a stream, with questions about it.

    Attributes:
        view: the memory as a question sees it.
        prefix: the prompt up to the question. `next_position` is the position of each tail's first token.
        tails: ids of each question, up to the opening of the answer's turn.
        answers: ids of each answer, including the end token.
        asked: the questions.
    """

    view: SceneView
    prefix: Prompt
    tails: list[list[int]]
    answers: list[list[int]]
    asked: tuple[Asked, ...]

    @property
    def rows(self) -> int:
        """Number of rows of the packed sequence."""
        return len(self.prefix) + sum(len(t) + len(a) - 1 for t, a in zip(self.tails, self.answers, strict=True))


def answer_text(record: QuestionRecord) -> str:
    """Return the text that the language model must write.

    Times and places come from the evidence, so they are not written. The text for a place is the name of the room.
    """
    if not record.answerable:
        return "no" if record.answer_type == "BINARY" else UNKNOWN
    expected = record.expected
    if record.answer_type == "COUNT":
        return str(expected.count)
    if record.answer_type == "DURATION":
        return f"{max(1, round(expected.duration_s or 0))} seconds"
    if record.answer_type == "TIME":
        return "heard" if any(e.modality == "audio" for e in record.evidence) else "seen"
    return str(expected.text)


def whole_view(tokens: Tokens, config: SalmonnConfig, tokenizer: FileTokenizer) -> SceneView:
    """Return the view of a stream without discarded tokens."""
    patches = len(tokens.z)
    timeline = Timeline(lambda text: len(tokenizer.encode(text)), False, config.max_position)
    timeline.begin(START_NS)
    for start in range(0, patches * 2, CUT_S):
        for patch in range(start // 2, min((start + CUT_S) // 2, patches)):
            stamp = START_NS + 2 * patch * SECOND_NS
            timeline.add_patch(timeline.block(patch, CAMERA, (stamp, stamp + SECOND_NS), GRID, ""))
            timeline.close(2 * CUT_S * SECOND_NS)
        count = min(AUDIO_WINDOW, len(tokens.audio) - 2 * start)
        if count > 0:
            timeline.add_sound(AudioRun(2 * start, START_NS + start * SECOND_NS, count, TOKEN_NS))
        timeline.close(2 * CUT_S * SECOND_NS)
    blocks, after = timeline.layout()
    number = torch.arange(patches * PATCH_TOKENS)
    stamp = START_NS + (number // PATCH_TOKENS) * 2 * SECOND_NS
    visual = TokenBatch(
        tokens.z.flatten(0, 1), tokens.deepstack.flatten(1, 2), number, stamp, number // PATCH_TOKENS,
        number % PATCH_TOKENS, torch.full_like(number, CAMERA), torch.full_like(number, -1),
        torch.tensor(GRID).expand(len(number), 2), last_ns=stamp + SECOND_NS,
    )  # fmt: skip
    heard = torch.arange(len(tokens.audio))
    sound = TokenBatch(
        tokens.audio, None, heard, START_NS + heard * TOKEN_NS, heard // AUDIO_WINDOW, torch.zeros_like(heard),
        torch.full_like(heard, MICROPHONE), torch.full_like(heard, -1),
    )  # fmt: skip
    flags = (torch.ones(len(number), dtype=torch.bool), torch.ones(len(heard), dtype=torch.bool))
    newest = START_NS + tokens.truth.seconds * SECOND_NS
    return SceneView(
        visual, flags[0], sound, flags[1], ("camera", "microphone"), newest_ns=newest, blocks=tuple(blocks),
        next_position=after,
    )  # fmt: skip


def lesson(view: SceneView, asked: Sequence[Asked], config: SalmonnConfig, tokenizer: FileTokenizer) -> Lesson:
    """Make a lesson from a view and questions, which share one prefix."""
    prompt = prompt_of(view, "?", tokenizer, config)
    start = prompt.question_start - 1
    prefix = Prompt(
        prompt.ids[:start], prompt.positions[:, :start], prompt.memory[:start], prompt.block[:start], start, start,
        int(prompt.positions[0, start]), prompt.visual_tokens,
    )  # fmt: skip
    return put(view, prefix, asked, tokenizer)


def put(view: SceneView, prefix: Prompt, asked: Sequence[Asked], tokenizer: FileTokenizer) -> Lesson:
    """Make a lesson from a view, its prompt up to the question, and questions."""
    end = tokenizer.specials.im_end
    opened = tokenizer.encode(ASSISTANT)[: ChatFormat().answer_tokens]
    tails = [tokenizer.encode("\n" + tokenizer.escape(a.text) + END) + opened for a in asked]
    answers = [[*tokenizer.encode(a.answer), end] for a in asked]
    pointed = tuple(replace(a, evidence=earliest(a.evidence, prefix)) if a.kind in FIRST else a for a in asked)
    return Lesson(view, prefix, tails, answers, pointed)


def earliest(evidence: tuple[int, ...], prefix: Prompt) -> tuple[int, ...]:
    """Return the evidence tokens of the earliest frame or stretch of sound."""
    if len(evidence) < 2:
        return evidence
    rows = torch.isin(prefix.memory, torch.tensor(evidence)).nonzero()[:, 0]
    first = rows[prefix.block[rows] == prefix.block[rows[0]]]
    return tuple(sorted(prefix.memory[first].tolist()))


def known(asked: Sequence[Asked]) -> list[Asked]:
    """Keep the questions that the memory can answer: it still holds evidence, or there never was any.

    If the evidence was discarded, the memory may still hold an older sight of the same thing. Nothing shows that this
    is not the last one, so the question is dropped.
    """
    return [a for a in asked if a.evidence or not a.answerable]


def some(asked: Sequence[Asked], rng: np.random.Generator) -> list[Asked]:
    """Sample at most AT_ONCE questions, and reword most of them.

    There are many more things that were never there than things that were. So the sample has no more "no" than "yes"
    answers to existence questions. Other unanswerable questions are at most half as many as answerable ones.
    """
    often = np.array([OFTEN.get(a.kind, 1.0) for a in asked])
    yes_no = np.array([a.kind == "existence" for a in asked])
    there = np.array([a.answerable for a in asked])
    for mine, most in ((yes_no, 1.0), (~yes_no, UNANSWERABLE)):
        absent, present = often[mine & ~there].sum(), often[mine & there].sum()
        if absent:
            often[mine & ~there] *= min(1.0, max(most * present, 1.0) / absent)
    chosen = rng.choice(len(asked), min(AT_ONCE, len(asked)), replace=False, p=often / often.sum())
    return [replace(asked[i], text=reworded(asked[i].text, rng)) for i in chosen]


def thinned(made: Lesson, share: float, tokenizer: FileTokenizer, rng: np.random.Generator) -> Lesson:
    """Drop that share of the memory tokens, and a quarter of that share of evidence tokens.

    A stream of a minute then looks like a memory after hours. Questions that need all of their evidence keep it. A
    question that lost its last evidence is dropped.
    """
    prefix, view = made.prefix, made.view
    tokens = sum(len(batch) for batch in (view.visual, view.audio) if batch is not None)
    loss = np.full(tokens, share)
    loss[[row for asked in made.asked for row in asked.evidence]] = share / 4
    loss[[row for asked in made.asked if asked.kind in JOINT for row in asked.evidence]] = 0
    gone = rng.random(tokens) < loss
    rows = (prefix.memory < 0) | ~torch.from_numpy(gone)[prefix.memory]
    left = Prompt(
        prefix.ids[rows], prefix.positions[:, rows], prefix.memory[rows], prefix.block[rows], int(rows.sum()),
        int(rows.sum()), prefix.next_position, prefix.visual_tokens,
    )  # fmt: skip
    asked = [replace(a, evidence=tuple(row for row in a.evidence if not gone[row])) for a in made.asked]
    return put(view, left, known(asked), tokenizer)


def draw(truth: Truth, count: int, seed: int, stamps: Stamps, now: int | None = None) -> list[Asked]:
    """Draw questions at one moment of a stream, answerable ones first.

    Apart from yes-or-no questions, at most a third are unanswerable. Questions about the number of knocks are added
    wherever possible, because random draws contain only one in three hundred.

    Args:
        truth: truth of the stream.
        count: maximum number of random questions; the added ones come on top.
        seed: seed of the draw. From 100 000 on, half of the wordings are held out from training.
        stamps: stamps of the view's tokens.
        now: second of the stream. Defaults to its end.
    """
    times = [truth.seconds if now is None else now]
    records = ask(truth, seed, count + count // 2, times=times)
    plain = [r for r in records if r.answerable or r.answer_type == "BINARY"]
    rest = [r for r in records if not (r.answerable or r.answer_type == "BINARY")]
    chosen = [*plain[: count - count // 4], *rest][:count]
    if any(sound.clear and sound.name in UNITS for sound in truth.sounds):
        said = {r.text for r in chosen}
        counts = ask(truth, seed, len(SHAPES) + len(UNITS), times=times, kinds=("count",))
        chosen += [r for r in counts if r.answerable and "units" in r.about and r.text not in said]
    return [
        Asked(r.text, answer_text(r), str(r.kind), r.answerable, tuple(evidence_rows(r, stamps, truth.moments)))
        for r in chosen
    ]
