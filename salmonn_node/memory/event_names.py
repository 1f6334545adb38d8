"""Names of events: what colour, shape, room or sound an event's keys stand for, and how likely it was really there.

Small read-outs of the keys. They come with a checkpoint beside those of `event_heads.py`; the event memory itself
knows no names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from salmonn_node.memory.events import Event
from salmonn_node.memory.readout_file import about_readout, save_readout

# What is read of an event's appearance, of the view around it, and of a sound.
LOOKS, PLACES, SOUNDS = ("colour", "shape"), ("room",), ("sound",)
# Signs of an event for what it shows being there: its weight and length, how many are alike, how sure the name is.
SIGNS = 4
FITS = 0.5  # an event fits a name from this probability on
# More alike ones than these say nothing more: what comes again for days is as real as what came again for hours, and
# the read-outs were fitted on memories of hours. Chosen on training worlds.
ALIKE_MOST = 20.0


class EventNames(nn.Module):
    """The read-outs.

    Args:
        labels: names by attribute: colour, shape, room, sound.
        said: by the name of a sound, the word that it is; sounds that are no words are left out.
        called: by the name of a shape, how a thing of it is called where that is not "{colour} {shape}".
        sizes: of the visual key, the audio key and the key of a view.

    Attributes:
        temperature: by answer type, what the logits of an answer's probability are divided by to give its confidence.
    """

    def __init__(
        self,
        labels: Mapping[str, Sequence[str]],
        said: Mapping[str, str],
        called: Mapping[str, str],
        sizes: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.labels = {name: tuple(values) for name, values in labels.items()}
        self.said, self.called = dict(said), dict(called)
        self.temperature: dict[str, float] = {}
        visual, audio, view = self.sizes = sizes
        widths = dict.fromkeys(LOOKS, visual) | dict.fromkeys(PLACES, view) | dict.fromkeys(SOUNDS, audio)
        self.read = nn.ModuleDict({name: nn.Linear(width, len(self.labels[name])) for name, width in widths.items()})
        self.credible = nn.ModuleDict({name: nn.Linear(SIGNS, 1) for name in ("thing", "sound")})

    @torch.no_grad()
    def probabilities(self, attribute: str, keys: Tensor) -> Tensor:
        """(n, labels) probabilities of the names of keys (n, K) of length 1."""
        return torch.softmax(self.read[attribute](keys.float()), dim=-1)

    @torch.no_grad()
    def credibility(self, kind: str, signs: Tensor) -> Tensor:
        """(n,) 0..1: how likely it is that what events with these signs (n, SIGNS) show was really there."""
        return torch.sigmoid(self.credible[kind](signs))[:, 0]

    def thing(self, colour: str, shape: str) -> str:
        """What a thing is called."""
        return self.called.get(shape, "{colour} {shape}").format(colour=colour, shape=shape)

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        about = {"labels": self.labels, "said": self.said, "called": self.called, "sizes": self.sizes} | {
            "temperature": self.temperature
        }
        save_readout(self, path, "event_names", about)

    @classmethod
    def load(cls, path: Path) -> EventNames:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            about = about_readout(path, "event_names")
            visual, audio, view = about["sizes"]
            names = cls(about["labels"], about["said"], about["called"], (visual, audio, view))
            names.load_state_dict(load_file(str(path)))
            names.temperature = {str(kind): float(value) for kind, value in about["temperature"].items()}
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: expected the names of events, found something else ({error})") from error
        return names.eval()


def signs_of(events: Sequence[Event], sure: Sequence[float]) -> Tensor:
    """(n, SIGNS) signs for whether events of one name, with the probabilities of that name, were really there."""
    met = min(ALIKE_MOST, sum(1.0 + met_before(e) for e in events))
    amounts = torch.tensor([[e.weight, float(e.frames), met] for e in events]).reshape(-1, 3).log1p()
    return torch.cat([amounts, torch.tensor(list(sure)).reshape(-1, 1)], dim=1)


def met_before(event: Event) -> float:
    """How many events like it went into a sight when the memory was full; a sound counts its beginnings instead."""
    return event.repeats if event.modality == "visual" else 0.0
