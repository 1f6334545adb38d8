"""Chat format of a family of networks: turns around the memory, instructions per answer type, words for yes and no.

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
    """Text around a memory and a question in the prompt. The defaults are those of the public release.

    Attributes:
        system: text of the system turn. Empty means no system turn.
        before_video: text between the opening of the user turn and the first time mark.
        after_video: text between the memory and the question. A question with a `<video>` in it replaces both texts.
        answer_tokens: how many tokens of the answer turn's opening end the prompt. None means all of them.
        instructions: by answer type, a line added to the question. `{choices}` stands for the choices.
        yes, no: the network's words, compared as whole answers.
        not_observed: what the instructions tell the network to write if the memory does not show the answer. An answer
            that begins with it is NOT_OBSERVED. Empty if the instructions do not say.
        shown: a yes-or-no question: does the memory show what `{question}` asks about? Empty means not asked.
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
        """Text of the prompt up to the user's words."""
        return (SYSTEM + self.system + END if self.system else "") + USER

    def split(self, question: str) -> tuple[str, str]:
        """Split user text into the parts before and after the memory. `<image>` counts as `<video>`."""
        if "<video>" not in question:
            if "<image>" not in question:
                return self.before_video, self.after_video + question
            question = question.replace("<image>", "<video>", 1)
        before, _, after = question.partition("<video>")
        return before, after

    def asked(self, question: str, kind: str, choices: Sequence[str] = ()) -> str:
        """Return the question with the instruction of its answer type."""
        instruction = self.instructions.get(kind, "")
        if not instruction:
            return question
        return f"{question}\n{instruction.replace('{choices}', '; '.join(choices))}"

    def asks_whether_shown(self, question: str) -> str:
        """Return the yes-or-no question: does the memory show what is asked about? Empty if the format has none."""
        return self.shown.replace("{question}", question)

    def unknown(self, answer: str) -> bool:
        """Whether an answer says that the memory does not show what is asked about."""
        return bool(self.not_observed) and answer.strip().casefold().startswith(self.not_observed.casefold())


def chat_format(family: str) -> ChatFormat:
    """Load the format of a family, which is the name of a file in `model/chat_formats/`.

    Raises:
        ValueError: there is no such family, or its file is malformed.
    """
    path = FAMILIES / f"{family}.yaml"
    known = sorted(file.stem for file in FAMILIES.glob("*.yaml"))
    if family not in known:
        raise ValueError(f"family: {family!r} is none of {', '.join(known)}")
    return _validated(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, path)


def overridden(family: ChatFormat, calibration: Path) -> ChatFormat:
    """Apply the values under `chat` of a calibration file to a format. Instructions are replaced one by one.

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
