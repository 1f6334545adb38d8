"""Fit the question head (`model/question_head.py`) on texts: the language model is frozen, and no world is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from salmonn_node.answering import event_forms
from salmonn_node.lab.training.loop import Figures
from salmonn_node.lab.training.question_texts import FORMS, PAIRS, SLOTS, QuestionText, draw
from salmonn_node.model.language import LanguageModel
from salmonn_node.model.question_head import HIDDEN, MOST_TOKENS, OTHER, QuestionHead, question_states
from salmonn_node.model.tokenizer import TextTokenizer
from salmonn_node.stream.answers import AnswerType

STEPS, BATCH, RATE = 3000, 64, 3e-3
TEXTS = 56_000  # drawn and encoded once; in 3000 steps each is met three or four times
SORTED = 16  # batches that are sorted by length together
SMOOTH = 0.01  # label smoothing: a form that was never met must not look certain
# The type of answer that each form is asked with.
KINDS = {name: form.answer for name, form in event_forms.FORMS.items()}
KINDS |= {name: kind for name, (_, kind) in event_forms.LEFT.items()} | dict.fromkeys(PAIRS, AnswerType.CHOICE)


def fit(
    language: LanguageModel,
    tokenizer: TextTokenizer,
    width: int,
    seed: int = 0,
    steps: int = STEPS,
    kept: bool | None = None,
) -> Iterator[tuple[QuestionHead, Figures]]:
    """Fit a head, and yield it with figures now and then; the last one is done.

    Args:
        language: the language model; it stays as it is.
        tokenizer: its tokenizer.
        width: D of the language model.
        seed: of the weights and of the texts.
        steps: batches of texts.
        kept: of the wordings, see `question_texts.draw`.
    """
    rng = np.random.default_rng([seed, 17])
    texts = [draw(rng, kept=kept) for _ in range(min(TEXTS, steps * BATCH))]
    states = [encoded(language, tokenizer, texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]
    rows = [s[m].half() for batch, masks in states for s, m in zip(batch, masks, strict=True)]
    yield from fit_on(texts, rows, width, seed, steps)


def fit_on(
    texts: Sequence[QuestionText],
    rows: Sequence[Tensor],
    width: int,
    seed: int = 0,
    steps: int = STEPS,
    hidden: int = HIDDEN,
) -> Iterator[tuple[QuestionHead, Figures]]:
    """As `fit`, on texts with their states (tokens, 2 D)."""
    torch.manual_seed(seed)
    head = QuestionHead(width, FORMS, SLOTS, hidden)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    rng = np.random.default_rng([seed, 18])
    lengths = np.array([len(r) for r in rows])
    batches: list[np.ndarray] = []
    for step in range(steps):
        batches = batches or alike_in_length(lengths, rng)
        chosen = batches.pop()
        mine = [texts[i] for i in chosen]
        states = pad_sequence([rows[i].float() for i in chosen], batch_first=True)
        mask = torch.arange(states.shape[1])[None] < torch.tensor([len(rows[i]) for i in chosen])[:, None]
        states = functional.dropout(states, 0.1) * (torch.rand(*mask.shape, 1) > 0.05)
        form, slots = head(states, mask)
        wanted = forms_of(mine)
        loss = functional.cross_entropy(form, wanted, label_smoothing=SMOOTH)
        loss = loss + functional.cross_entropy(*_asked_with_a_type(form, wanted, rng))
        for name, logits in slots.items():
            loss = loss + functional.cross_entropy(logits, slots_of(mine, name), label_smoothing=SMOOTH)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0 or step + 1 == steps:
            yield head.eval(), {"step": float(step + 1), "loss": float(loss.detach())}
            head.train()
    head.eval()


def alike_in_length(lengths: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Numbers of all texts in batches of about equal length, in random order: little of a batch is padding."""
    order = rng.permutation(len(lengths))
    several = BATCH * SORTED
    parts = [order[i : i + several] for i in range(0, len(order), several)]
    parts = [part[np.argsort(lengths[part], kind="stable")] for part in parts]
    batches = [part[i : i + BATCH] for part in parts for i in range(0, len(part), BATCH)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _asked_with_a_type(form: Tensor, wanted: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Logits and targets as when a type of answer is wanted: no other form can be meant, so those are of no form.

    Half of the texts get the type that suits them.
    """
    every = sorted(set(KINDS.values()))
    allowed = torch.tensor([[name == OTHER or KINDS.get(name) == kind for name in FORMS] for kind in every])
    kinds = torch.from_numpy(rng.integers(len(every), size=len(form)))
    own = torch.tensor([every.index(KINDS[name]) if name in KINDS else -1 for name in FORMS])[wanted]
    kinds = torch.where((own >= 0) & torch.from_numpy(rng.random(len(form)) < 0.5), own, kinds)
    meant = allowed[kinds]
    other = torch.full_like(wanted, FORMS.index(OTHER))
    return form.masked_fill(~meant, -1e4), torch.where(meant.gather(1, wanted[:, None])[:, 0], wanted, other)


def encoded(language: LanguageModel, tokenizer: TextTokenizer, texts: Sequence[QuestionText]) -> tuple[Tensor, Tensor]:
    """States (B, L, 2 D) of texts, and a mask (B, L) of their tokens."""
    ids = [tokenizer.encode(tokenizer.escape(t.text))[:MOST_TOKENS] for t in texts]
    longest = max(map(len, ids))
    rows = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask = torch.arange(longest)[None] < torch.tensor([len(row) for row in ids])[:, None]
    return question_states(language, rows), mask


def forms_of(texts: Sequence[QuestionText]) -> Tensor:
    """(B,) int64 numbers of the forms."""
    return torch.tensor([FORMS.index(t.form) for t in texts])


def slots_of(texts: Sequence[QuestionText], name: str) -> Tensor:
    """(B,) int64 numbers of what fills a slot, 0 where it is empty; -100 where nothing asks for it."""
    return torch.tensor(
        [
            -100 if t.form in ("other", *PAIRS) else 1 + SLOTS[name].index(t.slots[name]) if name in t.slots else 0
            for t in texts
        ]
    )


def scores(
    head: QuestionHead, language: LanguageModel, tokenizer: TextTokenizer, texts: Sequence[QuestionText]
) -> list[tuple[bool, float]]:
    """For each text whether form and slots are read right, and how sure the head is."""
    out = []
    for text in texts:
        read = head.read(language, tokenizer.encode(tokenizer.escape(text.text)))
        out.append(
            (
                read.form == text.form and (text.form in ("other", *PAIRS) or dict(read.slots) == text.slots),
                read.probability,
            )
        )
    return out
