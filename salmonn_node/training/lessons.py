"""A stream, what of it is in memory, and questions about it with their answers' text and evidence tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.assembly import Prompt, prompt_of
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.prompt import ANSWER_TOKENS, ASSISTANT, END
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.timeline import AudioRun, Timeline
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.replay.questions import QuestionRecord
from salmonn_node.stream.observations import SECOND_NS
from salmonn_node.training.sizes import GRID
from salmonn_node.training.streams import CUT_S, Tokens
from salmonn_node.training.vision import COVERED
from salmonn_node.world.asking import ask
from salmonn_node.world.objects import COLOURS, SHAPES
from salmonn_node.world.truth import START_NS, Moment, Truth

UNKNOWN = "unknown"
TOKEN_NS = SECOND_NS // 2
PATCH_TOKENS = GRID[0] * GRID[1]
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


@dataclass(frozen=True)
class Stamps:
    """When each token of a view began and ended, and where in the picture it lies; visual tokens first.

    Attributes:
        start_ns, end_ns: (T,) int64.
        place: (T,) int64, -1 for sound.
    """

    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]


def stamps_of(view: SceneView) -> Stamps:
    """Of the tokens of a view."""
    starts, ends, places = [], [], []
    for batch, sound in ((view.visual, False), (view.audio, True)):
        if batch is not None:
            assert batch.last_ns is not None
            starts.append(batch.stamp_ns.numpy())
            ends.append(batch.last_ns.numpy() + (TOKEN_NS if sound else 0))
            places.append(np.full(len(batch), -1) if sound else batch.place.numpy().astype(np.int64))
    return Stamps(np.concatenate(starts), np.concatenate(ends), np.concatenate(places))


def whole_stamps(seconds: int) -> Stamps:
    """Of the view of a stream of which nothing has been discarded."""
    number, heard = np.arange(seconds // 2 * PATCH_TOKENS), np.arange(2 * seconds)
    start = np.concatenate([number // PATCH_TOKENS * 2 * SECOND_NS, heard * TOKEN_NS]) + START_NS
    last = np.concatenate([np.full(len(number), SECOND_NS), np.full(len(heard), TOKEN_NS)])
    return Stamps(start, start + last, np.concatenate([number % PATCH_TOKENS, np.full(len(heard), -1)]))


def evidence_rows(record: QuestionRecord, stamps: Stamps, moments: Sequence[Moment]) -> list[int]:
    """Rows of tokens that show or let hear what answers a question; where things are named, only their squares.

    A token shows what its first patch showed, however long its place has looked alike since. Of what must be both
    seen and heard, nothing is left when one of the two is gone.
    """
    names = _names(record)
    found: dict[str, list[int]] = {}
    for modality in {interval.modality for interval in record.evidence}:
        mask = np.zeros(len(stamps.place), bool)
        for interval in record.evidence:
            if interval.modality == modality:
                mask |= (stamps.start_ns <= interval.end_ns) & (stamps.end_ns > interval.start_ns)
        rows = (mask & ((stamps.place >= 0) == (modality == "vision"))).nonzero()[0].tolist()
        if modality == "vision" and names:
            shows = [
                r for r in rows
                if _shows(names, int(stamps.start_ns[r]), int(stamps.end_ns[r]), int(stamps.place[r]), moments)
            ]  # fmt: skip
            rows = shows if shows or _could_show(names, record, moments) else rows
        found[modality] = rows
    if len(found) == 2 and not all(found.values()):
        return []
    return [row for modality in ("vision", "audio") for row in found.get(modality, [])]


def _names(record: QuestionRecord) -> set[str]:
    """Names of the things that a token must show to be evidence; empty where any token of the time is."""
    about = record.about
    if record.kind == "colour":
        return {f"{record.expected.text} {about['shape']}"}
    if record.kind in ("change", "seen_when_heard"):
        return {record.expected.text}
    if about["template"] == "count_things":
        shape = next(s for s in SHAPES if about["shapes"].startswith(s))
        return {f"{colour} {shape}" for colour in COLOURS}
    if about["template"] == "order_things":
        return {about["a"], about["b"]}
    return {about["thing"]} if "thing" in about else set()


def _could_show(names: set[str], record: QuestionRecord, moments: Sequence[Moment]) -> bool:
    """Whether some token of the whole stream showed it: what only touches its squares is evidence of any of them."""
    for interval in record.evidence:
        if interval.modality == "vision":
            first = (interval.start_ns - START_NS) // SECOND_NS // 2
            last = (interval.end_ns - START_NS) // SECOND_NS // 2
            for patch in range(first, last + 1):
                start = START_NS + 2 * patch * SECOND_NS
                if any(_shows(names, start, start + 2 * SECOND_NS, q, moments) for q in range(PATCH_TOKENS)):
                    return True
    return False


def _shows(names: set[str], start_ns: int, end_ns: int, place: int, moments: Sequence[Moment]) -> bool:
    """Whether a token's square shows one of the things in one of its patch's frames."""
    low, wide = divmod(place, GRID[1])
    first = (start_ns - START_NS) // SECOND_NS
    for second in {first, min(first + 1, (end_ns - START_NS) // SECOND_NS)}:
        for seen in moments[second].seen if second < len(moments) else ():
            if seen.thing.name not in names:
                continue
            x0, y0, x1, y1 = seen.box
            x = min(x1, (wide + 1) / GRID[1]) - max(x0, wide / GRID[1])
            y = min(y1, (low + 1) / GRID[0]) - max(y0, low / GRID[0])
            if x > 0 and y > 0 and (x * y * PATCH_TOKENS >= COVERED or x * y >= 0.5 * (x1 - x0) * (y1 - y0)):
                return True
    return False


def lesson(view: SceneView, asked: Sequence[Asked], config: SalmonnConfig, tokenizer: FileTokenizer) -> Lesson:
    """Put questions to a view, packed after one prefix."""
    prompt = prompt_of(view, "?", tokenizer, all_marks=False, max_marks=config.max_time_marks)
    start = prompt.question_start - 1
    prefix = Prompt(
        prompt.ids[:start], prompt.positions[:, :start], prompt.memory[:start], prompt.block[:start], start, start,
        int(prompt.positions[0, start]), prompt.visual_tokens,
    )  # fmt: skip
    return put(view, prefix, asked, tokenizer)


def put(view: SceneView, prefix: Prompt, asked: Sequence[Asked], tokenizer: FileTokenizer) -> Lesson:
    """A lesson of a view's prompt up to the question, and questions."""
    end = tokenizer.specials.im_end
    opened = tokenizer.encode(ASSISTANT)[:ANSWER_TOKENS]
    tails = [tokenizer.encode("\n" + tokenizer.escape(a.text) + END) + opened for a in asked]
    answers = [[*tokenizer.encode(a.answer), end] for a in asked]
    return Lesson(view, prefix, tails, answers, tuple(asked))


def thinned(made: Lesson, share: float, tokenizer: FileTokenizer, rng: np.random.Generator) -> Lesson:
    """The lesson with that share of its memory tokens gone, of those that show an answer a quarter of it.

    So that a stream of a minute looks as a memory does after hours. What lost its last evidence is "unknown".
    """
    prefix, view = made.prefix, made.view
    wanted = np.zeros(sum(len(batch) for batch in (view.visual, view.audio) if batch is not None), bool)
    wanted[[row for asked in made.asked for row in asked.evidence]] = True
    gone = rng.random(len(wanted)) < np.where(wanted, share / 4, share)
    rows = (prefix.memory < 0) | ~torch.from_numpy(gone)[prefix.memory]
    left = Prompt(
        prefix.ids[rows], prefix.positions[:, rows], prefix.memory[rows], prefix.block[rows], int(rows.sum()),
        int(rows.sum()), prefix.next_position, prefix.visual_tokens,
    )  # fmt: skip
    asked = []
    for a in made.asked:
        evidence = tuple(row for row in a.evidence if not gone[row])
        asked.append(replace(a, evidence=evidence, answer=UNKNOWN if a.evidence and not evidence else a.answer))
    return put(view, left, asked, tokenizer)


def draw(truth: Truth, count: int, seed: int, stamps: Stamps, now: int | None = None) -> list[Asked]:
    """Questions at one moment of a stream, answerable ones first: at most a third is not, yes-or-no ones aside.

    Args:
        truth: of the stream.
        count: at most so many.
        seed: of the draw; from 100 000 on half of the wordings are those that training never shows.
        stamps: of the view's tokens.
        now: second of the stream; its end when not given.
    """
    records = ask(truth, seed, count + count // 2, times=[truth.seconds if now is None else now])
    plain = [r for r in records if r.answerable or r.answer_type == "BINARY"]
    rest = [r for r in records if not (r.answerable or r.answer_type == "BINARY")]
    chosen = [*plain[: count - count // 4], *rest][:count]
    return [
        Asked(r.text, answer_text(r), str(r.kind), r.answerable, tuple(evidence_rows(r, stamps, truth.moments)))
        for r in chosen
    ]
