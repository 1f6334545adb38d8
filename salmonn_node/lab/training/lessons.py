"""A stream, what of it is in memory, and questions about it with their answers' text and evidence tokens."""

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
from salmonn_node.lab.world.queries import UNITS
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
# Kinds whose answer takes more than one piece of evidence.
JOINT = ("count", "order", "change", "state_now", "seen_when_heard", "what_was_said")
# Kinds whose answer is what came first: of their evidence the pointer is to find the earliest.
FIRST = ("order",)
# Asked each time that a stream is read, of more that were drawn: else answers are learned by heart.
AT_ONCE = 20
UNANSWERABLE = 0.5  # at most so many as answerable ones
# Kinds chosen more often than others: what is still wrong when the rest is learned, and can be told from what is kept.
OFTEN = {
    "colour": 2.5, "order": 2.0, "count": 2.0, "seen_when_heard": 2.0, "what_was_said": 1.5, "state_now": 1.5,
    "state_earlier": 1.5, "change": 0.5,
}  # fmt: skip
AUDIO_WINDOW = 2 * CUT_S
CAMERA, MICROPHONE = 0, 1


@dataclass(frozen=True)
class Asked:
    """A question of a lesson.

    Attributes:
        text: the question.
        answer: what the language model is to write.
        kind: of the world's kinds.
        answerable: whether the stream holds an answer.
        evidence: rows of the view's tokens that show it; empty when unanswerable.
    """

    text: str
    answer: str
    kind: str
    answerable: bool
    evidence: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Lesson:
    """One stream's memory with questions about it.

    Attributes:
        view: the memory as a question sees it.
        prefix: the prompt up to the question; `next_position` is that of each tail's first token.
        tails: ids of each question's part, the answer's turn opened.
        answers: ids of each answer, the end token included.
        asked: the questions.
    """

    view: SceneView
    prefix: Prompt
    tails: list[list[int]]
    answers: list[list[int]]
    asked: tuple[Asked, ...]

    @property
    def rows(self) -> int:
        """Rows of the packed sequence."""
        return len(self.prefix) + sum(len(t) + len(a) - 1 for t, a in zip(self.tails, self.answers, strict=True))


def answer_text(record: QuestionRecord) -> str:
    """What the language model is to write.

    Times and places are not spelled: they are those of the evidence. A place's text is the room's name.
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
    """The view of a stream of which nothing has been discarded."""
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
    """Put questions to a view, packed after one prefix."""
    prompt = prompt_of(view, "?", tokenizer, config)
    start = prompt.question_start - 1
    prefix = Prompt(
        prompt.ids[:start], prompt.positions[:, :start], prompt.memory[:start], prompt.block[:start], start, start,
        int(prompt.positions[0, start]), prompt.visual_tokens,
    )  # fmt: skip
    return put(view, prefix, asked, tokenizer)


def put(view: SceneView, prefix: Prompt, asked: Sequence[Asked], tokenizer: FileTokenizer) -> Lesson:
    """A lesson of a view's prompt up to the question, and questions."""
    end = tokenizer.specials.im_end
    opened = tokenizer.encode(ASSISTANT)[: ChatFormat().answer_tokens]
    tails = [tokenizer.encode("\n" + tokenizer.escape(a.text) + END) + opened for a in asked]
    answers = [[*tokenizer.encode(a.answer), end] for a in asked]
    pointed = tuple(replace(a, evidence=earliest(a.evidence, prefix)) if a.kind in FIRST else a for a in asked)
    return Lesson(view, prefix, tails, answers, pointed)


def earliest(evidence: tuple[int, ...], prefix: Prompt) -> tuple[int, ...]:
    """Of some tokens those of the first frame, or stretch of sound, that any of them is of: what came first."""
    if len(evidence) < 2:
        return evidence
    rows = torch.isin(prefix.memory, torch.tensor(evidence)).nonzero()[:, 0]
    first = rows[prefix.block[rows] == prefix.block[rows[0]]]
    return tuple(sorted(prefix.memory[first].tolist()))


def known(asked: Sequence[Asked]) -> list[Asked]:
    """Those whose right answer the memory can give: it still holds evidence, or there never was any.

    What was seen and let go is neither: an older sight of the same may be there, and that it is not the last nobody
    can tell from the memory.
    """
    return [a for a in asked if a.evidence or not a.answerable]


def some(asked: Sequence[Asked], rng: np.random.Generator) -> list[Asked]:
    """At most AT_ONCE of them by lot, most in other words.

    There is no end of what was never there, and of what was there there is: so the "no" to whether something was there
    weigh no more than the "yes" together, and what else has no answer half as much as what has one.
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
    """The lesson with that share of its memory tokens gone, of those that show an answer a quarter of it.

    So that a stream of a minute looks as a memory does after hours. What needs all of its evidence keeps it; a
    question that lost its last evidence goes.
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
    """Questions at one moment of a stream, answerable ones first: at most a third is not, yes-or-no ones aside.

    How often something knocked is asked besides wherever it did: by lot it is one question in three hundred.

    Args:
        truth: of the stream.
        count: at most so many, and those.
        seed: of the draw; from 100 000 on half of the wordings are those that training never shows.
        stamps: of the view's tokens.
        now: second of the stream; its end when not given.
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
