"""Writes moments to the evidence index with the robot's pose, and updates the pose when better poses arrive."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from salmonn_node.ingest.admission import Admission
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import Interval, Pose
from salmonn_node.stream.pose_track import PoseTrack

if TYPE_CHECKING:
    from salmonn_node.memory.memory_view import MemoryView
    from salmonn_node.memory.token_batch import TokenBatch

VISION = "vision"
UNSETTLED = 256  # how many moments wait for a better pose
# Older poses are not needed: an audio window is at most 30 s, and the moments in the index already have their pose.
TRACK_S = 45.0


class PlacedMoments:
    """Writes moments, and the robot poses they were observed from, to the evidence index.

    Args:
        evidence: the index to write to.
    """

    def __init__(self, evidence: EvidenceIndex) -> None:
        self._evidence = evidence
        self._track = PoseTrack()
        self._last_pose: tuple[Pose, int] | None = None  # the last stored pose and its id
        self._newest: dict[str, Moment] = {}
        self._unsettled: deque[Moment] = deque(maxlen=UNSETTLED)

    def add_pose(self, pose: Pose) -> Admission:
        """Add a pose; returns "taken" or the reason of the refusal. Call `settle` once a taken pose is recorded."""
        return self._track.add(pose)

    def settle(self, stamp_ns: int) -> None:
        """Look up the poses of moments up to `stamp_ns` again, because they now have poses on both sides."""
        settled = [moment for moment in self._unsettled if _posed_until(moment) <= stamp_ns]
        if not settled:
            return
        self._unsettled = deque((m for m in self._unsettled if _posed_until(m) > stamp_ns), UNSETTLED)
        for moment in settled:
            self._evidence.add(replace(moment, pose_id=self.pose_id(moment.interval.start_ns)))
            second = self._track.at(moment.interval.end_ns) if moment.modality == VISION else None
            if second is not None:
                self._evidence.settle_pose(second)

    def pose_id(self, stamp_ns: int) -> int:
        """Id in the evidence index of the robot's pose at `stamp_ns`; -1 when unknown. Stores the pose at first use."""
        pose = self._track.at(stamp_ns)
        if pose is None:
            return -1
        if self._last_pose is None or not _same(self._last_pose[0], pose):
            self._last_pose = (pose, self._evidence.add_pose(pose))
        return self._last_pose[1]

    def add(self, moment: Moment, picture: bytes = b"") -> None:
        """Add a moment to the index. Its pose is looked up again once the poses around it have arrived."""
        stamp_ns = moment.interval.start_ns
        moment = replace(moment, pose_id=self.pose_id(stamp_ns), thumbnail=moment.thumbnail or picture)
        self._evidence.add(moment)
        if not self._track.settled(_posed_until(moment)):
            self._unsettled.append(moment)

    def note_newest(self, moment: Moment) -> Moment | None:
        """Remember the newest observation of a source, whose patch may be unfinished; returns the previous one."""
        before = self._newest.get(moment.source)
        self._newest[moment.source] = moment
        return before

    def unindexed(self, view: MemoryView) -> dict[tuple[str, str, int], tuple[Moment, Pose | None]]:
        """Moments of a view that are not in the evidence index yet, because their patch or window is unfinished.

        The view keeps them. The index gets them only when the stream goes on, but an answer must not depend on when it
        is made. Their poses are not stored, so a question does not change the index.

        Returns:
            (modality, source, stamp) -> (moment, robot pose). Ignore the moment's token range.
        """
        found: dict[tuple[str, str, int], tuple[Moment, Pose | None]] = {}
        tails = (("vision", view.visual, view.visual_committed), ("audio", view.audio, view.audio_committed))
        for modality, batch, committed in tails:
            if batch is None or bool(committed.all()):
                continue
            tail = batch.select(~committed)
            first = {(view.sources[s], t): i for s, t, i in zip(*_columns(tail), strict=True)}
            for (source, stamp_ns), kept in zip(first, self._evidence.of_tokens(modality, first.values()), strict=True):
                moment = self._newest.get(source)
                if kept is None and moment is not None:
                    picture = moment.thumbnail if moment.interval.start_ns == stamp_ns else b""
                    moment = replace(moment, interval=Interval(stamp_ns, stamp_ns), thumbnail=picture)
                    found[modality, source, stamp_ns] = moment, self._track.at(stamp_ns)
        return found

    def clear(self) -> None:
        """Forget everything, also in the index, because a new session begins."""
        self._evidence.clear()
        self._track.clear()
        self._last_pose = None
        self._newest.clear()
        self._unsettled.clear()

    def forget(self, interval: Interval) -> None:
        """Forget the poses and moments of an interval. The index is not changed."""
        self._track.forget(interval)
        self._last_pose = None
        self._newest = {source: m for source, m in self._newest.items() if not m.interval.overlaps(interval)}
        settling = [moment for moment in self._unsettled if not moment.interval.overlaps(interval)]
        self._unsettled = deque(settling, UNSETTLED)

    def to_state(self) -> dict[str, Any]:
        """State as JSON values, for `restore`. The index itself is not included."""
        last = self._last_pose
        return {
            "track": self._track.to_state(TRACK_S),
            "newest": [moment.to_state() for moment in self._newest.values()],
            "unsettled": [moment.to_state() for moment in self._unsettled],
            "last_pose": None if last is None else [last[0].to_state(), last[1]],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from `to_state`. Raises KeyError, TypeError or ValueError when a value is malformed."""
        newest = [Moment.from_state(values) for values in state["newest"]]
        last = state["last_pose"]
        self._newest = {moment.source: moment for moment in newest}
        self._unsettled = deque((Moment.from_state(values) for values in state["unsettled"]), UNSETTLED)
        self._track.restore(state["track"])
        self._last_pose = None if last is None else (Pose.from_state(last[0]), int(last[1]))


def _posed_until(moment: Moment) -> int:
    """Stamp of the last pose that answers read of a moment: of a patch's second frame, or of the start of sound."""
    return moment.interval.end_ns if moment.modality == VISION else moment.interval.start_ns


def _columns(batch: TokenBatch) -> tuple[list[int], list[int], list[int]]:
    return batch.source.tolist(), batch.stamp_ns.tolist(), batch.index.tolist()


def _same(one: Pose, other: Pose) -> bool:
    return one.stamp_ns == other.stamp_ns and bool((one.position == other.position).all())
