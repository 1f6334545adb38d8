"""Question head: reads from the language model's own states what a question asks, about which thing or sound, or room.

The language model stays as it is. The head reads its states of the question's words alone, without any memory: which
form the question has ("when was it last seen") and what fills each slot ("red", "ball"). It says how sure it is, so
that a question of no known form goes to the language model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from salmonn_node.memory.readout_file import about_readout, save_readout
from salmonn_node.model.language import LanguageModel
from salmonn_node.model.text_states import text_states

OTHER = "other"
HIDDEN = 128
MOST_TOKENS = 96  # of a question; a longer one has no known form
LOOKS = 3  # ways in which the words are weighed to tell the form
REACH = 2  # tokens to either side that a token is read with


@dataclass(frozen=True)
class QuestionReading:
    """What a question asks.

    Attributes:
        form: its form, "other" for none of those that the head knows.
        slots: what fills each slot, without the empty ones.
        probability: of the form and all slots together, 0..1.
    """

    form: str
    slots: Mapping[str, str]
    probability: float


class QuestionHead(nn.Module):
    """The head.

    Args:
        width: D of the language model.
        forms: names of the forms; the first is "other".
        slots: by name of the slot, what may fill it.
        hidden: channels inside.
    """

    def __init__(
        self, width: int, forms: Sequence[str], slots: Mapping[str, Sequence[str]], hidden: int = HIDDEN
    ) -> None:
        super().__init__()
        self.width, self.hidden, self.forms = width, hidden, tuple(forms)
        self.slots = {name: tuple(labels) for name, labels in slots.items()}
        self.enter = nn.Linear(2 * width, hidden)
        self.near = nn.Conv1d(hidden, hidden, 2 * REACH + 1, padding=REACH)
        self.look = nn.Linear(hidden, LOOKS + len(self.slots))
        self.form = nn.Sequential(
            nn.Linear((1 + LOOKS) * hidden, hidden), nn.GELU(), nn.Linear(hidden, len(self.forms))
        )
        self.fill = nn.ModuleDict({name: nn.Linear(hidden, 1 + len(labels)) for name, labels in self.slots.items()})

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map states (B, L, 2 D) with a mask (B, L) to logits: the form (B, forms), each slot (B, 1 + labels)."""
        x = torch.nn.functional.gelu(self.enter(states)) * mask[..., None]
        x = (x + torch.nn.functional.gelu(self.near(x.mT).mT)) * mask[..., None]
        weight = self.look(x).masked_fill(~mask[..., None], -1e4).softmax(1)
        pooled = torch.einsum("blh,blq->bqh", x, weight)
        mean = x.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        form = self.form(torch.cat([pooled[:, :LOOKS].flatten(1), mean], dim=1))
        return form, {name: layer(pooled[:, LOOKS + i]) for i, (name, layer) in enumerate(self.fill.items())}

    @torch.no_grad()
    def read(
        self, language: LanguageModel, ids: Sequence[int], forms: Mapping[str, Collection[str] | None] | None = None
    ) -> QuestionReading:
        """Read the tokens of a question.

        Args:
            language: the language model.
            ids: the tokens.
            forms: the forms that can be meant, as whoever asks says which type of answer is wanted, each with the slots
                that it fills, or None where it may fill any. A form is meant only with just these slots. "other" always
                can be meant. Without `forms`, all can.
        """
        if not 0 < len(ids) <= MOST_TOKENS:
            return QuestionReading(OTHER, {}, 1.0)
        states = question_states(language, torch.tensor([list(ids)]))
        form, slots = self(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))
        found, sure = {}, 1.0
        for name, logits in slots.items():
            chance, label = logits[0].softmax(0).max(0)
            sure = min(sure, float(chance))
            if int(label):
                found[name] = self.slots[name][int(label) - 1]
        plain = form[0].softmax(0)
        if forms is not None:
            out = [name != OTHER and not _filled(forms.get(name, ()), found, name in forms) for name in self.forms]
            form[0, out] = -math.inf
        probability, number = form[0].softmax(0).max(0)
        if not found:  # no slot speaks for the form either
            probability = plain[number]
        meant = self.forms[int(number)]
        if forms is not None and meant in forms and forms[meant] is None:  # what fills its slots stands elsewhere
            sure = 1.0
        return QuestionReading(meant, found, min(sure, float(probability)))

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        about = {"width": self.width, "hidden": self.hidden, "forms": self.forms, "slots": self.slots}
        save_readout(self, path, "question_head", about)

    @classmethod
    def load(cls, path: Path) -> QuestionHead:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            about = about_readout(path, "question_head")
            head = cls(int(about["width"]), about["forms"], about["slots"], int(about["hidden"]))
            head.load_state_dict(load_file(str(path)))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: expected a question head, found something else ({error})") from error
        return head.eval()


def _filled(wanted: Collection[str] | None, found: Mapping[str, str], known: bool) -> bool:
    """Whether a form can be meant: it is known, and just its slots are filled."""
    return known and (wanted is None or set(wanted) == set(found))


@torch.no_grad()
def question_states(language: LanguageModel, ids: Tensor) -> Tensor:
    """(B, L, 2 D) float32 on the CPU: embeddings of the ids (B, L) beside the language model's normed last states.

    The head runs on the CPU, wherever the language model lies: it is too small to gain anything elsewhere.
    Attention is causal, so what follows the end of a shorter question does not change its states.
    """
    rows = language.embed(ids.to(language.lm_head.weight.device))
    return torch.cat([rows, text_states(language.decoder, rows)], dim=-1).float().cpu()
