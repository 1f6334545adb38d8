"""What a snapshot is made from: a copy of the memory's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from salmonn_node.storage.snapshot import Identity, Manifest
from salmonn_node.stream.observations import Interval


@dataclass(frozen=True)
class State:
    """A copy of the memory's state. Later observations do not change it.

    Attributes:
        tensors: name -> tensor, as safetensors stores them.
        values: the rest as JSON values.
        start_ns, newest_ns: first and newest stamp over all sessions; 0, 0 when nothing was observed.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    start_ns: int = 0
    newest_ns: int = 0

    def manifest(
        self, number: int, segment: int, identity: Identity, evidence: dict[str, Any], forgotten: Interval | None = None
    ) -> Manifest:
        """The manifest of a snapshot of this state, before its files are written.

        Args:
            number: number of the snapshot.
            segment: number of the journal segment that follows it.
            identity: checkpoint and configuration.
            evidence: position of the evidence index.
            forgotten: an interval that was forgotten, if any.
        """
        return Manifest(
            number=number,
            identity=identity.to_dict(),
            segment=segment,
            start_ns=self.start_ns,
            newest_ns=self.newest_ns,
            state={"values": self.values, "evidence": evidence},
            forgotten=[] if forgotten is None else [(forgotten.start_ns, forgotten.end_ns)],
        )

    def on_cpu(self) -> dict[str, Tensor]:
        """The tensors on the CPU, ready to be written."""
        return {name: tensor.cpu() for name, tensor in self.tensors.items()}
