"""Fit the question head (`model/question_head.py`) on texts: the language model is frozen, and no world is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from salmonn_node.lab.training.loop import Figures
from salmonn_node.lab.training.question_texts import FORMS, PAIRS, SLOTS, QuestionText, draw
from salmonn_node.model.language import LanguageModel
from salmonn_node.model.question_head import MOST_TOKENS, QuestionHead, question_states
from salmonn_node.model.tokenizer import TextTokenizer

STEPS, BATCH, RATE = 3000, 64, 3e-3
SMOOTH = 0.01  # label smoothing: a form that was never met must not look certain


def fit(
    language: LanguageModel,
    tokenizer: TextTokenizer,
    width: int,
    seed: int = 0,
    steps: int = STEPS,
    wordings: Sequence[int] = (),
) -> Iterator[tuple[QuestionHead, Figures]]:
    """Fit a head, and yield it with figures now and then; the last one is done.

    Args:
        language: the language model; it stays as it is.
        tokenizer: its tokenizer.
        width: D of the language model.
        seed: of the weights and of the texts.
        steps: batches of texts.
        wordings: of the forms, see `question_texts.draw`.
    """
    torch.manual_seed(seed)
    head = QuestionHead(width, FORMS, SLOTS)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    rng = np.random.default_rng([seed, 17])
    for step in range(steps):
        texts = [draw(rng, wordings=wordings) for _ in range(BATCH)]
        states, mask = encoded(language, tokenizer, texts)
        states = functional.dropout(states, 0.1) * (torch.rand(*mask.shape, 1) > 0.05)
        form, slots = head(states, mask)
        loss = functional.cross_entropy(form, forms_of(texts), label_smoothing=SMOOTH)
        for name, logits in slots.items():
            loss = loss + functional.cross_entropy(logits, slots_of(texts, name), label_smoothing=SMOOTH)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0 or step + 1 == steps:
            yield head.eval(), {"step": float(step + 1), "loss": float(loss.detach())}
            head.train()
    head.eval()


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
