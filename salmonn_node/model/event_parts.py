"""Parts of a checkpoint that answer from events: read-outs that tell events apart, names, the question head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.event_names import EventNames
from salmonn_node.model.question_head import QuestionHead

FOLDER = "events"  # of a checkpoint; a folder of its own, as it holds no weights of the network
EVENT_HEADS, EVENT_NAMES, QUESTION_HEAD = (
    f"{FOLDER}/{name}.safetensors" for name in ("heads", "names", "question_head")
)


@dataclass(frozen=True)
class EventParts:
    """What answers from events need.

    Attributes:
        heads: tell events apart.
        names: name what events show, or let hear.
        questions: reads what a question asks.
    """

    heads: EventHeads
    names: EventNames
    questions: QuestionHead

    @classmethod
    def load(cls, folder: Path) -> EventParts | None:
        """Read the parts from a checkpoint's folder; None where one of them is missing.

        Raises:
            ValueError: a file holds something else.
        """
        paths = [folder / name for name in (EVENT_HEADS, EVENT_NAMES, QUESTION_HEAD)]
        if not all(path.is_file() for path in paths):
            return None
        return cls(EventHeads.load(paths[0]), EventNames.load(paths[1]), QuestionHead.load(paths[2]))

    def save(self, folder: Path) -> None:
        """Write the parts into a checkpoint's folder."""
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        self.heads.save(folder / EVENT_HEADS)
        self.names.save(folder / EVENT_NAMES)
        self.questions.save(folder / QUESTION_HEAD)
