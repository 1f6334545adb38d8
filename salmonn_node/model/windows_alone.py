"""Windows alone: read the question anew over each window of the memory, as if nothing else had been observed.

This is more exact than the masked passes of `evidence_windows.py`. There, the rows of a window have attended to what
came before it. It costs a whole reading of each window, so it runs only if there is time to spare. One pass
reads many windows; a mask separates them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.answer_decoder import AnswerDecoder
from salmonn_node.model.assembly import Prompt, embed_prompt
from salmonn_node.model.evidence_windows import CANDIDATES, Windows, question_row
from salmonn_node.model.language import PromptTokens
from salmonn_node.model.network import Network
from salmonn_node.model.scene_view import SceneView

# The readings of all windows together have at most so many times the rows of the whole prompt.
MOST_ROWS = 4
# Rows of a window that are no memory tokens, no question and no answer: turns and time marks, roughly.
TEXT_ROWS = 16
MakePrompt = Callable[[SceneView], Prompt]
Part = tuple[Prompt, SceneView]
# Whether there are so many seconds to spare.
Spare = Callable[[float], bool]


def part_of(view: SceneView, readable: Tensor) -> SceneView:
    """Return a view that holds only some of the memory tokens.

    Args:
        view: the view.
        readable: (T,) bool, which tokens to keep.
    """
    seen = 0 if view.visual is None else len(view.visual)
    visual, visual_committed = _rows(view.visual, view.visual_committed, readable[:seen])
    audio, audio_committed = _rows(view.audio, view.audio_committed, readable[seen:])
    return replace(
        view,
        visual=visual,
        visual_committed=visual_committed,
        audio=audio,
        audio_committed=audio_committed,
        prefill=None,
    )


def affordable(decoder: AnswerDecoder, windows: Windows, answer: Sequence[int]) -> Tensor:
    """Windows that may be read alone, heaviest first: (k,) int64. At least CANDIDATES, if there are so many."""
    order = windows.heaviest(len(windows.mass))
    text = len(decoder.prompt) - question_row(decoder) + len(answer) + TEXT_ROWS
    rows = torch.bincount(windows.place, minlength=len(order))[order] + text
    count = int((rows.cumsum(0) <= MOST_ROWS * len(decoder.prompt)).sum())
    return order[: max(count, CANDIDATES)]


@torch.no_grad()
def sufficiencies_alone(
    decoder: AnswerDecoder,
    prompt: MakePrompt,
    windows: Windows,
    compared: Tensor,
    answer: Sequence[int],
    spare: Spare = lambda seconds: True,
) -> Tensor | None:
    """(k,) float32: sufficiency of each window, each read anew. None as soon as the time does not suffice for all.

    Args:
        decoder: decoder of the question over the whole view.
        prompt: makes the prompt of the question over a part of the view.
        windows: windows of the view.
        compared: (k,) int64, windows to compare, at least one.
        answer: ids of the network's answer.
        spare: called before each pass, with the seconds that the rest will take.
    """
    nothing = torch.zeros_like(windows.place, dtype=torch.bool)
    parts = []
    for tokens in (nothing, *(windows.tokens(int(n)) for n in compared)):
        part = part_of(decoder.view, tokens)
        parts.append((prompt(part), part))
    scores: list[Tensor] = []
    began, done, rows = time.monotonic(), 0, sum(len(made) for made, _ in parts)
    for batch in _batches(parts, decoder.network.language.chunk):
        each_s = (time.monotonic() - began) / done if done else 0.0
        if not spare(each_s * (rows - done)):
            return None
        scores.append(_pass(decoder.network, batch, answer))
        done += sum(len(made) for made, _ in batch)
    whole = torch.cat(scores)
    return whole[1:] - whole[0]


def _batches(parts: Sequence[Part], chunk: int) -> Iterator[list[Part]]:
    """Group parts so that each group has at most `chunk` rows, or one part."""
    batch: list[Part] = []
    for part in parts:
        if batch and sum(len(made) for made, _ in batch) + len(part[0]) > chunk:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def _pass(network: Network, batch: Sequence[Part], answer: Sequence[int]) -> Tensor:
    """(n,) float32: log-likelihood of the answer after each prompt. A mask separates the prompts of one pass."""
    language, more = network.language, torch.tensor(answer[:-1], dtype=torch.int64)
    device = language.lm_head.weight.device
    tokens: PromptTokens | None = None
    for made, view in batch:
        where = (made.next_position + torch.arange(len(more))).expand(3, -1).to(device)
        flags = torch.zeros(len(more), dtype=torch.bool, device=device)
        said = PromptTokens(language.embed(more.to(device)), where, flags)
        piece = PromptTokens.cat(embed_prompt(made, view, language), said)
        tokens = piece if tokens is None else PromptTokens.cat(tokens, piece)
    assert tokens is not None
    lengths = [len(made) + len(more) for made, _ in batch]
    owner = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor(lengths))
    mask = (owner[:, None] == owner[None]) & torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    hidden = language(tokens, None, mask=mask[None, None].to(device)).split(lengths)
    targets = torch.tensor(answer, device=device)
    totals = []
    for (made, _), states in zip(batch, hidden, strict=True):
        last = states[len(made) - 1 :]
        memory = (made.memory >= 0).nonzero()[:, 0]
        if network.evidence is not None and len(memory):
            frames = made.block[memory].to(device)
            last = last + network.evidence(last, states[memory.to(device)], frames).context
        scores = torch.log_softmax(language.logits(last), dim=-1)
        totals.append(scores.gather(1, targets[:, None]).sum())
    return torch.stack(totals).float().cpu()


def _rows(batch: TokenBatch | None, committed: Tensor, keep: Tensor) -> tuple[TokenBatch | None, Tensor]:
    if batch is None:
        return None, committed
    return (batch.select(keep) if bool(keep.any()) else None), committed[keep]
