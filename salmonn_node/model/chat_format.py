"""How a family of networks is asked: the turns around the memory, an instruction for each answer type, yes and no.

Each family has one file in `model/chat_formats/`. A checkpoint's `calibration.json` may replace single values under
`chat`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

FAMILIES = Path(__file__).resolve().parent / "chat_formats"
SYSTEM, USER, END = "<|im_start|>system\n", "<|im_start|>user\n", "<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
CHAT = "chat"


class ChatFormat(BaseModel):
    """What surrounds a memory and a question in the prompt; the defaults are those of the public release.

    Attributes:
        system: text of a system turn; empty: the prompt has none.
        before_video, after_video: text between the user turn's opening and the first time mark, and between the memory
            and the question. A question with a `<video>` in it brings its own.
        answer_tokens: so many tokens of the answer turn's opening end the prompt; None: all of them.
        instructions: what is added to a question, on a line of its own, by the name of its answer type; `{choices}`
            stands for the choices.
        yes, no: how the network writes them; they are compared as whole answers.
        not_observed: what the instructions tell the network to write when the memory does not show it; an answer that
            begins with it is NOT_OBSERVED. Empty: they tell it nothing.
        shown: a yes-or-no question, whether the memory shows what `{question}` asks about; empty: it is not asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str = ""
    before_video: str = ""
    after_video: str = "\n"
    answer_tokens: int | None = 3
    instructions: dict[str, str] = {}
    yes: str = "yes"
    no: str = "no"
    not_observed: str = ""
    shown: str = ""

    @property
    def opening(self) -> str:
        """The prompt's text up to the user's words."""
        return (SYSTEM + self.system + END if self.system else "") + USER

    def split(self, question: str) -> tuple[str, str]:
        """User text before and after the memory; an `<image>` stands for a `<video>`."""
        if "<video>" not in question:
            if "<image>" not in question:
                return self.before_video, self.after_video + question
            question = question.replace("<image>", "<video>", 1)
        before, _, after = question.partition("<video>")
        return before, after

    def asked(self, question: str, kind: str, choices: Sequence[str] = ()) -> str:
        """A question with the instruction of its answer type."""
        instruction = self.instructions.get(kind, "")
        if not instruction:
            return question
        return f"{question}\n{instruction.replace('{choices}', '; '.join(choices))}"

    def asks_whether_shown(self, question: str) -> str:
        """The yes-or-no question whether the memory shows what a question asks about; empty when none is asked."""
        return self.shown.replace("{question}", question)

    def unknown(self, answer: str) -> bool:
        """Whether an answer says that the memory does not show what was asked."""
        return bool(self.not_observed) and answer.strip().casefold().startswith(self.not_observed.casefold())


def chat_format(family: str) -> ChatFormat:
    """The format of a family: a file's name in `model/chat_formats/`.

    Raises:
        ValueError: there is no such family, or its file is malformed.
    """
    path = FAMILIES / f"{family}.yaml"
    known = sorted(file.stem for file in FAMILIES.glob("*.yaml"))
    if family not in known:
        raise ValueError(f"family: {family!r} is none of {', '.join(known)}")
    return _validated(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, path)


def overridden(family: ChatFormat, calibration: Path) -> ChatFormat:
    """A family's format with what a calibration file replaces under `chat`; instructions are replaced one by one.

    Raises:
        ValueError: the file is malformed, or a value has no such name.
    """
    try:
        given = json.loads(calibration.read_bytes()).get(CHAT, {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{calibration}: not a JSON object: {error}") from None
    if not given:
        return family
    if not isinstance(given, dict):
        raise ValueError(f"{calibration}: {CHAT}: expected an object, got {type(given).__name__}")
    values = family.model_dump() | given
    if isinstance(given.get("instructions"), dict):
        values["instructions"] = family.instructions | given["instructions"]
    return _validated(values, calibration)


def _validated(values: Any, path: Path) -> ChatFormat:
    try:
        return ChatFormat.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {where or CHAT}: {first['msg']}") from None
