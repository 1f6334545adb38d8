"""A small stand-in for the network: a state that every observation changes, so that a lost or doubled one shows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.storage.journal import Mark, Record, encode_record
from salmonn_node.storage.restore import RestoreReport
from salmonn_node.storage.snapshot import Identity
from salmonn_node.storage.state import State
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame, Interval, Pose

IDENTITY = Identity("ledger-1", "small")


def observation(n: int) -> Record:
    """The n-th observation of one fixed stream, half a second each: frames, sound, poses and a mark in turn."""
    chance = np.random.default_rng(n)
    stamp_ns = SECOND_NS + n * SECOND_NS // 2
    if n % 4 == 0:
        return Frame(stamp_ns, "front", chance.integers(0, 255, (16, 24, 3), np.uint8), "optical")
    if n % 4 == 2:
        return Pose(stamp_ns, "map", chance.normal(size=3), np.array([0.0, 0.0, 0.0, 1.0]), np.eye(6) * n)
    if n % 8 == 7:
        return Mark("session", {"number": n})
    samples = chance.normal(0, 0.1, 800).astype(np.float32)
    return AudioSpan(stamp_ns, "mic", samples)


class Ledger:
    """State: a digest chained over all observations, and a matrix that each one turns."""

    def __init__(self, evidence: EvidenceIndex) -> None:
        self.evidence = evidence
        self.digest, self.count, self.newest_ns = "", 0, 0
        self.matrix = torch.eye(8)

    def take(self, record: Record) -> None:
        data = encode_record(record)
        self.digest = hashlib.sha256(self.digest.encode() + data).hexdigest()
        self.matrix = torch.tanh(self.matrix * 1.01 + float(data[-1]) / 255)
        self.count += 1
        if isinstance(record, Frame):
            self.newest_ns = record.stamp_ns
            interval = Interval(record.stamp_ns, record.stamp_ns)
            self.evidence.add(Moment("vision", self.count, self.count + 1, interval, "front", thumbnail=data[:20]))
        elif isinstance(record, Pose):
            self.evidence.add_pose(record)

    def state(self) -> State:
        values = {"digest": self.digest, "count": self.count, "newest_ns": self.newest_ns}
        return State({"matrix": self.matrix.clone()}, values, 0 if not self.count else SECOND_NS, self.newest_ns)

    def load(self, tensors: dict[str, Tensor], values: dict) -> None:
        self.matrix, self.digest = tensors["matrix"], values["digest"]
        self.count, self.newest_ns = values["count"], values["newest_ns"]

    def print(self) -> tuple[str, int, bytes, str]:
        return self.digest, self.count, self.matrix.numpy().tobytes(), self.evidence.digest()


def uninterrupted(count: int) -> Ledger:
    """The ledger of a process that never died."""
    ledger = Ledger(EvidenceIndex())
    for n in range(count):
        ledger.take(observation(n))
    return ledger


def reopen(root: Path, name: str = "m", **options) -> tuple[MemoryStore, Ledger, RestoreReport]:
    """Open a store and restore its ledger, as a process does at its start."""
    options = {"sync_period_s": 0.0, **options}
    store = MemoryStore(root, name, options.pop("identity", IDENTITY), **options)
    ledger = Ledger(store.evidence)
    try:
        report = store.restore(ledger.load, ledger.take)
    except BaseException:
        store.close()
        raise
    return store, ledger, report


def observe(store: MemoryStore, ledger: Ledger, count: int, snapshot_every: int = 0) -> None:
    """Take `count` more observations in, journal first."""
    for _ in range(count):
        record = observation(ledger.count)
        store.append(record)
        ledger.take(record)
        if snapshot_every and ledger.count % snapshot_every == 0:
            store.snapshot(ledger.state())
