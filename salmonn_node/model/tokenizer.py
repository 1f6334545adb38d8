"""Tokenizer: text to ids and back, from a checkpoint's tokenizer.json or byte-level, with ids of special tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from salmonn_node.model.checkpoint_files import refuse_pointer

TOKENIZER_FILE = "tokenizer.json"
SPECIALS = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "image_pad": "<|image_pad|>",
    "video_pad": "<|video_pad|>",
    "audio_pad": "<|audio_pad|>",
}
# If a vocabulary of the Qwen3-VL family lacks the audio token, use the release's id.
RELEASED_AUDIO_PAD = 151_669


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens that structure a prompt. -1 if the vocabulary lacks the token."""

    im_start: int
    im_end: int
    vision_start: int
    vision_end: int
    image_pad: int
    video_pad: int
    audio_pad: int


class TextTokenizer(Protocol):
    """Interface of the tokenizer that the prompt needs."""

    specials: SpecialIds
    ends: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens written in it become their ids."""
        ...

    def escape(self, text: str) -> str:
        """The text with a space inside whatever would become a special or added token."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens, without clean-up."""
        ...


class FileTokenizer:
    """Tokenizer of the `tokenizers` library."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        found = {name: tokenizer.token_to_id(text) for name, text in SPECIALS.items()}
        missing = [
            SPECIALS[n] for n in ("im_start", "im_end", "vision_start", "vision_end", "video_pad") if found[n] is None
        ]
        if missing:
            raise ValueError(f"the tokenizer lacks {', '.join(missing)}")
        if found["audio_pad"] is None and found["im_start"] == 151_644:
            found["audio_pad"] = RELEASED_AUDIO_PAD
        names = {token.content for token in tokenizer.get_added_tokens_decoder().values()} | set(SPECIALS.values())
        # Longest first. Inserting a space cannot create another special token.
        self._added = sorted((n for n in names if len(n) > 1 and not n.isspace()), key=lambda n: (-len(n), n))
        end_of_text = tokenizer.token_to_id("<|endoftext|>")
        self.ends: tuple[int, ...] = () if end_of_text is None else (end_of_text,)
        self.specials = SpecialIds(**{name: -1 if value is None else value for name, value in found.items()})

    @property
    def largest_id(self) -> int:
        """The largest id that a text can produce."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens written in it become their ids."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens, without clean-up."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def escape(self, text: str) -> str:
        """The text with a space inside whatever would become a special or added token.

        Text from others is data. It must not end a turn, open another one, or stand for an image.
        """
        for name in self._added:
            text = text.replace(name, f"{name[0]} {name[1:]}")
        return text

    @classmethod
    def from_folder(cls, folder: Path) -> FileTokenizer:
        """Read `tokenizer.json`.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a tokenizer, or lacks special tokens.
        """
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"checkpoint: {path} does not exist. From the slow tokenizer's files, transformers writes it: "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
        refuse_pointer(path)
        try:
            return cls(Tokenizer.from_file(str(path)))
        except ValueError:
            raise
        except Exception as error:  # the library raises bare Exception on malformed files
            raise ValueError(f"{path}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`."""
        self.tokenizer.save(str(folder / TOKENIZER_FILE))


def byte_tokenizer(texts: Iterable[str] = (), vocabulary: int = 512) -> FileTokenizer:
    """Make a byte-level BPE tokenizer. Every text has ids; merges are learned from `texts`.

    The result depends on the arguments only. Special tokens come first.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return FileTokenizer(tokenizer)
