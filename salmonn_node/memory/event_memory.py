"""The event memory: a fixed budget of events, and which tokens the token memory has to keep for them.

Of all events that are alike, the first and the last stay. Two sights are alike when they look alike and, the more so,
when they were seen from the same place; two sounds when they sound alike and, the more so, when the same was in view.
What was in view at the last sound of its kind is never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from salmonn_node.memory import events as event_tensors
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.events import Event, SegmentConfig
from salmonn_node.memory.sight_segments import SightSegmenter
from salmonn_node.memory.sound_segments import SoundSegmenter
from salmonn_node.memory.stamp_order import StampOrder
from salmonn_node.memory.token_batch import TokenBatch

PINNED = -3.0
# Numbers of an event beside its keys: its row of the table and its amounts, each of 8 bytes.
NUMBERS = 13
KEY_BYTES = 2  # of each channel of a settled event's keys


@dataclass(frozen=True)
class EventMemoryConfig:
    """Budgets and settings.

    Attributes:
        sights, sounds: events kept of each modality.
        visual_share, audio_share: share of a token budget that the tokens of events may take.
        settle_ns: an event is weighed against the others this long after it ended, when what was heard or seen
            meanwhile has come as well; until then it stays.
        slack_ns: a sight and a sound this far apart still belong together.
        alike: cosine from which a sound is one of its kind.
        likeness_power: power of the cosine in the likeness of two events. With a high one, a first or last of its kind
            is not dropped for others that share its colour only.
        wait_ns: a modality that is behind the other is waited for until it lags by more than this, so that the events
            do not depend on how pictures and sound take turns. 0: it is not waited for.
        full_likeness: cosine from which two events are fully alike; how far above makes no difference. Below 1, what
            looks a little odd among many of its kind is not kept for that.
        doubtful_share: share of the budget that doubtful sights may take: those that too little resembles. Such a
            sight is a thing met once, or a mistake; nothing stands for it, so first and last alone would keep it.
        doubtful_below: number of sights so far, itself included, below which a sight is doubtful.
        same: cosine from which two sights look the same.
        segment: settings of the segmentation.
    """

    sights: int = 160
    sounds: int = 72
    visual_share: float = 0.7
    audio_share: float = 0.8
    settle_ns: int = 8_000_000_000
    slack_ns: int = 1_000_000_000
    alike: float = 0.6
    likeness_power: float = 1.0
    wait_ns: int = 0
    full_likeness: float = 1.0
    doubtful_share: float = 1.0
    doubtful_below: int = 3
    same: float = 0.9
    segment: SegmentConfig = field(default_factory=SegmentConfig)

    def __post_init__(self) -> None:
        for name in ("sights", "sounds"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: expected at least 2, got {getattr(self, name)}")
        for name in ("visual_share", "audio_share", "doubtful_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")

    def most_bytes(self, key_sizes: tuple[int, int, int]) -> int:
        """Bytes of full budgets, given the sizes of the visual key, the audio key and the key of a view."""
        visual, audio, view = key_sizes
        sight, sound = (KEY_BYTES * size + 8 * NUMBERS for size in (visual + view + audio, audio + visual))
        return self.sights * sight + self.sounds * sound


# Beside the tokens, whose budget is not shared; chosen on training worlds.
BESIDE = EventMemoryConfig(
    sights=320, sounds=96, likeness_power=8.0, full_likeness=0.9, doubtful_share=0.25, wait_ns=20_000_000_000
)


class EventMemory:
    """Events of one stream. Not thread-safe: `StreamMemory` holds the lock.

    Args:
        heads: read-outs that come with the checkpoint.
        config: budgets and settings.

    Attributes:
        kept: by modality, the settled events in order of their end.
        dropped: by modality, how many went.
        partial: whether the stream began before these events did, so that nobody may conclude from them what never was.
    """

    def __init__(self, heads: EventHeads, config: EventMemoryConfig | None = None) -> None:
        self.heads, self.config = heads, config or EventMemoryConfig()
        segment = self.config.segment
        self._segmenters: dict[str, SightSegmenter | SoundSegmenter] = {
            "visual": SightSegmenter(heads, segment),
            "audio": SoundSegmenter(heads, segment),
        }
        self._order = StampOrder(self.config.wait_ns)
        self.kept: dict[str, list[Event]] = {"visual": [], "audio": []}
        self._ended: dict[str, list[Event]] = {"visual": [], "audio": []}
        self._newest_ns = {"visual": -1, "audio": -1}
        self.dropped = {"visual": 0, "audio": 0}
        self.partial = False

    def fresh(self) -> EventMemory:
        """An empty one with the same read-outs and settings."""
        return EventMemory(self.heads, self.config)

    def snapshot(self) -> EventMemory:
        """A copy that may be fed further, while this one stays as it is."""
        copy = self.fresh()
        copy._segmenters = {modality: segmenter.copy() for modality, segmenter in self._segmenters.items()}
        # Settled events are never changed in place, so that both may hold them.
        copy.kept = {modality: list(listed) for modality, listed in self.kept.items()}
        copy._ended = {modality: [replace(e) for e in listed] for modality, listed in self._ended.items()}
        copy._order = self._order.copy()
        copy._newest_ns, copy.dropped, copy.partial = dict(self._newest_ns), dict(self.dropped), self.partial
        return copy

    def finish(self) -> None:
        """Read what waits for the other modality, and the last token of each microphone as if silence followed."""
        for modality, batch in self._order.drain():
            self._take(modality, batch)
        for segmenter in self._segmenters.values():
            if isinstance(segmenter, SoundSegmenter):
                self._ended["audio"] += segmenter.finish()

    @property
    def nbytes(self) -> int:
        """Bytes of all events; bounded by the budgets, the few that are open or unsettled, and tokens that wait."""
        events = [e for modality in event_tensors.MODALITIES for e in self.events(modality)]
        return sum(e.key.nbytes + e.view.nbytes + e.met.nbytes + 8 * NUMBERS for e in events) + self._order.nbytes

    def events(self, modality: str) -> list[Event]:
        """All events of a modality: settled, ended, and the open runs that would be events if they ended now."""
        segmenter = self._segmenters[modality]
        running = [run for run in segmenter.open if segmenter.makes_event(run)]
        return [*self.kept[modality], *self._ended[modality], *running]

    def running(self, modality: str) -> list[Event]:
        """The runs of a modality that go on."""
        return list(self._segmenters[modality].open)

    def observe(self, modality: str, batch: TokenBatch) -> list[Event]:
        """Take tokens of a modality in, in order of `index`; returns the events that ended, of either modality."""
        turns = self._order.push(modality, batch)
        return [event for name, tokens in turns for event in self._take(name, tokens)]

    def _take(self, modality: str, batch: TokenBatch) -> list[Event]:
        segmenter = self._segmenters[modality]
        if isinstance(segmenter, SoundSegmenter):
            by_token = segmenter.by_token(batch)
            for stamp, ended in zip(batch.stamp_ns.tolist(), by_token, strict=True):
                self.add(modality, ended, stamp)
            return [event for ended in by_token for event in ended]
        ended = segmenter.observe(batch)
        if segmenter.between_patches:
            # Events are weighed after whole patches only, so it does not matter how tokens are cut into calls.
            self.add(modality, ended, int(batch.stamp_ns.max()))
        return ended

    def add(self, modality: str, ended: Sequence[Event], now_ns: int) -> None:
        """Take events in that ended, in order of their end, and weigh those that are settled at `now_ns`.

        `observe` does this with what it tells from tokens. Called directly, it replays events told earlier.
        """
        self._ended[modality] += ended
        self._newest_ns[modality] = max(self._newest_ns[modality], now_ns)
        self._settle(modality)

    def _settle(self, modality: str) -> None:
        until = self._newest_ns[modality] - self.config.settle_ns
        ripe = [e for e in self._ended[modality] if e.last_ns < until]
        if not ripe:
            return
        self._ended[modality] = [e for e in self._ended[modality] if e.last_ns >= until]
        other = "audio" if modality == "visual" else "visual"
        partners = self.events(other)
        for event in ripe:
            met = [p for p in partners if event.overlaps(p, self.config.slack_ns)]
            event.together = tuple(p.number for p in met)
            size = self.heads.key_sizes[0 if modality == "audio" else 1]
            keys = sum((p.direction for p in met), torch.zeros(size))
            if modality == "audio":
                event.view = keys
            else:
                event.met = keys
            event.settle()
            self.kept[modality].append(event)
            if len(self.kept[modality]) > self._budget(modality):
                self._drop(modality)

    def _budget(self, modality: str) -> int:
        return self.config.sights if modality == "visual" else self.config.sounds

    def _drop(self, modality: str) -> None:
        """The event that most resembles both an earlier and a later one goes; of equal ones the earlier.

        A sight leaves its number, and what was heard with it, to the one that it resembles most. Where there are too
        many doubtful sights, the oldest of them goes instead and leaves nothing.
        """
        kept = self.kept[modality]
        cosines = _cosines(kept)
        score = self.redundancy(modality, kept, cosines)
        self.dropped[modality] += 1
        if modality == "visual":
            doubtful = (self.doubtful(kept, cosines) & (score > PINNED)).nonzero()[:, 0].tolist()
            if len(doubtful) > self.config.doubtful_share * self.config.sights:
                del kept[doubtful[0]]
                return
        gone = kept.pop(int(score.argmax()))
        if modality == "visual":
            nearest = int((event_tensors.directions([e.key for e in kept]) @ gone.direction).argmax())
            heir = kept[nearest]
            kept[nearest] = replace(heir, repeats=heir.repeats + 1.0 + gone.repeats, met=heir.met + gone.met)

    def redundancy(self, modality: str, events: list[Event], cosines: Tensor | None = None) -> Tensor:
        """(n,) how well others stand for each event: the smaller of its likeness with one before and one after it.

        Lower means more worth keeping; PINNED is what must stay. `cosines` (n, n) of the events' keys may be given.
        """
        if not events:
            return torch.empty(0)
        cosines = _cosines(events) if cosines is None else cosines
        views = event_tensors.directions([e.view for e in events])
        alone = (views.abs().sum(1) == 0).float()
        # In place, as a new (n, n) tensor costs more than what is computed in it.
        shared = (views @ views.T).clamp_min_(0)
        if bool(alone.any()):
            # Silence beside silence is alike; a sound with something in view and one without are not.
            shared += torch.outer(alone, alone)
        likeness = (cosines / self.config.full_likeness).clamp_(0, 1).pow_(self.config.likeness_power)
        likeness *= shared.mul_(0.5).add_(0.5)
        before = torch.tril(likeness, -1).amax(1)
        after = likeness.triu_(1).amax(1)
        score = torch.minimum(before, after)
        if modality == "visual":
            heard = [bool(e.together) for e in events]
            score = score - 0.25 * torch.tensor(heard, dtype=torch.float32)
            score[self._seen_with(events, self._last_of_their_kind())] = PINNED
        return score

    def doubtful(self, sights: list[Event], cosines: Tensor | None = None) -> Tensor:
        """(n,) bool: which sights look like too few others, those dropped in their favour counted."""
        cosines = _cosines(sights) if cosines is None else cosines
        count = torch.tensor([1.0 + e.repeats for e in sights])
        return (cosines >= self.config.same).float() @ count < self.config.doubtful_below

    def _last_of_their_kind(self) -> list[Event]:
        """Sounds after which nothing like them came."""
        sounds = self.events("audio")
        if not sounds:
            return []
        later = torch.triu(_cosines(sounds), 1) >= self.config.alike
        return [e for e, again in zip(sounds, later.any(1).tolist(), strict=True) if not again]

    def _seen_with(self, sights: list[Event], sounds: list[Event]) -> Tensor:
        """(n,) bool: which sights touch any of the sounds in time."""
        began, ended = (torch.tensor([getattr(e, name) for e in sights])[:, None] for name in ("first_ns", "last_ns"))
        slack = self.config.slack_ns
        low, high = (
            torch.tensor([e.first_ns - slack for e in sounds]),
            torch.tensor([e.last_ns + slack for e in sounds]),
        )
        return ((began <= high) & (low <= ended)).any(1)

    def wanted(self, modality: str, budget: int) -> dict[int, int]:
        """Tokens to keep, by original index, each with the stamp until which it stands; the most wanted first.

        The first token of a sight and the sharpest of a sound stand for the whole event: until its end. Then the last
        tokens of sights, and the other tokens of sounds.
        """
        share = self.config.visual_share if modality == "visual" else self.config.audio_share
        room = int(share * budget)
        events = self.events(modality)
        order = torch.sort(self.redundancy(modality, events), stable=True).indices.tolist()
        out: dict[int, int] = {}
        for number in order:
            event = events[number]
            out.setdefault(event.tokens[1] if modality == "visual" else event.tokens[0], event.last_ns)
        for number in order:
            _, first, last = events[number].tokens
            # Tokens of other microphones that lie between are only kept a little longer than they need be.
            for index in (last,) if modality == "visual" else range(first, last + 1):
                out.setdefault(index, 0)
        return dict(list(out.items())[:room])

    def forget(self, after_ns: int, before_ns: int) -> int:
        """Remove the events that touch [after_ns, before_ns], open ones too; returns how many left."""
        gone = 0
        for modality in event_tensors.MODALITIES:
            for listed in (self.kept[modality], self._ended[modality]):
                stay = [e for e in listed if e.last_ns < after_ns or e.first_ns > before_ns]
                gone += len(listed) - len(stay)
                listed[:] = stay
            gone += self._segmenters[modality].forget(after_ns, before_ns)
        self._order.forget(after_ns, before_ns)
        # What a sight took over from dropped ones may be of that time: nobody can tell, so it goes too.
        self.kept["visual"] = [
            replace(e, repeats=0.0, met=torch.zeros_like(e.met)) if e.repeats else e for e in self.kept["visual"]
        ]
        return gone

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state as tensors and JSON values; `restore` continues bit for bit."""
        tensors: dict[str, Tensor] = {}
        meta: dict[str, Any] = {
            "newest_ns": dict(self._newest_ns), "dropped": dict(self.dropped), "partial": self.partial
        }  # fmt: skip
        waiting, meta["order"] = self._order.to_tensors()
        tensors |= {f"order.{name}": tensor for name, tensor in waiting.items()}
        for modality in event_tensors.MODALITIES:
            named, meta[modality] = self._segmenters[modality].to_tensors()
            parts = {"kept": event_tensors.to_tensors(self.kept[modality])}
            parts |= {"ended": event_tensors.to_tensors(self._ended[modality]), "segments": named}
            for name, values in parts.items():
                tensors |= {f"{modality}.{name}.{key}": value for key, value in values.items()}
        return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Continue from what `to_tensors` gave.

        Raises:
            KeyError: something is missing.
        """
        self.partial = bool(meta.get("partial", False))
        if "order" in meta:  # an earlier version held nothing back
            self._order.restore(event_tensors.part(tensors, "order"), meta["order"])
        for modality in event_tensors.MODALITIES:
            mine = event_tensors.part(tensors, modality)
            self.kept[modality] = event_tensors.from_tensors(event_tensors.part(mine, "kept"), modality)
            self._ended[modality] = event_tensors.from_tensors(event_tensors.part(mine, "ended"), modality)
            self._segmenters[modality].restore(event_tensors.part(mine, "segments"), meta[modality])
            self._newest_ns[modality] = int(meta["newest_ns"][modality])
            self.dropped[modality] = int(meta["dropped"][modality])


def _cosines(events: Sequence[Event]) -> Tensor:
    """(n, n) cosines of the keys of at least one event."""
    keys = event_tensors.directions([e.key for e in events])
    return keys @ keys.T
