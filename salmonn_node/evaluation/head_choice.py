"""Choose the attention heads that propose evidence, on questions of which it is known where their evidence lies.

A network has many attention heads, and few of them look at the evidence. The heads are ranked by how often their
heaviest window meets it, and the best ones are averaged. Cross-validation finds how many to take. If the choice is not
clearly better than all heads on questions that it was not made on, all heads stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from salmonn_node.model.evidence_windows import CANDIDATES, WINDOW_NS
from salmonn_node.model.generation import Heads, WindowScores
from salmonn_node.stream.observations import Interval

FOLDS = 5
FEWEST = 20  # questions with evidence
CLEARLY = 2.0  # standard errors of the difference
TINIEST = 1e-30


@dataclass(frozen=True)
class Located:
    """A question with known evidence, and what the network tells about the windows of its memory.

    Attributes:
        origin: questions of one origin stay in one fold.
        attention: (layers, heads, n) attention of the answer position to each window.
        sufficiency: (n,) sufficiency of each window, NaN where it was not compared.
        hits: (n,) whether each window meets some piece of evidence, at least one of them.
    """

    origin: str
    attention: npt.NDArray[np.float32]
    sufficiency: npt.NDArray[np.float32]
    hits: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, origin: str, windows: WindowScores, evidence: Sequence[Interval]) -> Located | None:
        """Compare windows with the evidence of a question. None if no window in memory meets it."""
        starts = windows.start_ns.tolist()
        spans = [Interval(start, start + WINDOW_NS - 1) for start in starts]
        hits = np.array([any(span.overlaps(piece) for piece in evidence) for span in spans], bool)
        if not hits.any():
            return None
        return cls(origin, windows.attention.numpy(), windows.sufficiency.numpy(), hits)

    def found(self, heads: Heads = ()) -> bool:
        """Whether the window that the node would show meets the evidence, with these heads (none: all of them)."""
        mass = self._mass(heads)
        mass = np.where(np.isnan(self.sufficiency), -1.0, mass)
        best = np.argsort(-mass, kind="stable")[:CANDIDATES]
        best = best[mass[best] >= 0]
        score = self.sufficiency[best] + np.log(np.maximum(mass[best], TINIEST))
        return bool(self.hits[best[score.argmax()]])

    def _mass(self, heads: Heads) -> npt.NDArray[np.float32]:
        if not heads:
            return np.asarray(self.attention.mean(axis=(0, 1)))
        layer, head = np.array(heads).T
        return np.asarray(self.attention[layer, head].mean(axis=0))


@dataclass(frozen=True)
class Tried:
    """Evidence found with the best heads, in cross-validation.

    Attributes:
        sizes: how many heads were averaged.
        found: (sizes, questions) whether the evidence was found, with heads chosen on other questions.
        plain: (questions,) the same with all heads.
    """

    sizes: list[int]
    found: npt.NDArray[np.float64]
    plain: npt.NDArray[np.float64]

    @property
    def best(self) -> int:
        """Number of heads with which most evidence was found. 0: all of them, because none is clearly better.

        Clearly means: by more than CLEARLY standard errors of the difference.
        """
        if not self.sizes:
            return 0
        number = int(self.found.mean(axis=1).argmax())
        gain = self.found[number] - self.plain
        return self.sizes[number] if gain.mean() > CLEARLY * gain.std(ddof=1) / np.sqrt(len(gain)) else 0


def tried(questions: Sequence[Located], folds: int = FOLDS) -> Tried:
    """Try how many heads to average. Fewer than FEWEST questions, or `folds` origins, try nothing.

    Args:
        questions: of one network.
        folds: number of parts of the questions.
    """
    plain = np.array([q.found() for q in questions], float)
    names = sorted({q.origin for q in questions})
    if len(questions) < FEWEST or len(names) < folds:
        return Tried([], np.zeros((0, len(plain))), plain)
    fold = {name: number % folds for number, name in enumerate(names)}
    mine = np.array([fold[q.origin] for q in questions])
    single = _single_hits(questions)
    sizes = _sizes(single.shape[1] * single.shape[2])
    found = np.zeros((len(sizes), len(questions)))
    for number in range(folds):
        ranked = _ranked(single[mine != number])
        for i in np.flatnonzero(mine == number).tolist():
            found[:, i] = [questions[i].found(ranked[:size]) for size in sizes]
    return Tried(sizes, found, plain)


def chosen_heads(questions: Sequence[Located], folds: int = FOLDS) -> Heads:
    """Return the heads to average, best first. Empty: all of them. The arguments are those of `tried`."""
    size = tried(questions, folds).best
    return _ranked(_single_hits(questions))[:size] if size else ()


def _sizes(heads: int) -> list[int]:
    """How many heads are tried: powers of two, at most half of them."""
    return [1 << n for n in range(heads.bit_length()) if 1 << n <= max(1, heads // 2)]


def _single_hits(questions: Sequence[Located]) -> npt.NDArray[np.float64]:
    """(questions, layers, heads): whether each head alone finds the evidence by its attention."""
    return np.stack([q.hits[q.attention.argmax(axis=2)] for q in questions]).astype(float)


def _ranked(single: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """All heads, those that find the evidence most often first."""
    share = single.mean(axis=0)
    order = np.argsort(-share, axis=None, kind="stable")
    return [(int(i) // share.shape[1], int(i) % share.shape[1]) for i in order]
