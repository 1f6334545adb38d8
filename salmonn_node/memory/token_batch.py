"""Batch of memory tokens: features, and for each token its stamp, sensor, place and pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

# Columns of the int64 table in which the memory keeps the metadata of a token, in the order of the fields.
COLUMNS = ("index", "stamp_ns", "patch", "place", "source", "pose_id", "grid_h", "grid_w", "count", "last_ns")


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """L tokens of one modality in order of `index`.

    Attributes:
        z: (L, D) float, token features: the gated output of the TTT layer, or audio embeddings.
        deepstack: (K, L, D) float, rows that the language model adds after its first K layers, or None.
        index: (L,) int64, original index of the token in the stream of its modality, strictly increasing.
        stamp_ns: (L,) int64, stamp of the token in nanoseconds of the stream's clock, >= 0.
        patch: (L,) int64, number of the temporal patch (visual) or window (audio) in the stream.
        place: (L,) int32, raster position y * w + x in the patch.
        source: (L,) int16, id of the camera or microphone.
        pose_id: (L,) int64, id of the robot's pose at that time, -1 if unknown.
        grid: (L, 2) int32, height and width of the token's patch, (1, 1) if it has no grid.
        count: (L,) int64, number of original tokens that this row represents.
        last_ns: (L,) int64, stamp of the last frame or sound that this row represents.

    All tensors but `z` and `deepstack` are on the CPU. Other integer dtypes are converted.
    """

    z: Tensor
    deepstack: Tensor | None
    index: Tensor
    stamp_ns: Tensor
    patch: Tensor
    place: Tensor
    source: Tensor
    pose_id: Tensor
    grid: Tensor | None = None
    count: Tensor | None = None
    last_ns: Tensor | None = None

    def __post_init__(self) -> None:
        length = self.z.shape[0] if self.z.dim() == 2 else -1
        defaults = {
            "grid": torch.ones(max(length, 0), 2, dtype=torch.int32),
            "count": torch.ones(max(length, 0), dtype=torch.int64),
            "last_ns": self.stamp_ns,
        }
        dtypes = {"place": torch.int32, "source": torch.int16, "grid": torch.int32}
        for item in fields(self)[2:]:
            value = getattr(self, item.name)
            value = defaults[item.name] if value is None else value
            object.__setattr__(self, item.name, value.to(device="cpu", dtype=dtypes.get(item.name, torch.int64)))

    def __len__(self) -> int:
        return self.z.shape[0]

    @property
    def width(self) -> int:
        """Number of features per token, D * (1 + K)."""
        return self.z.shape[1] * (1 + (0 if self.deepstack is None else self.deepstack.shape[0]))

    def features(self) -> Tensor:
        """(L, D * (1 + K)): the vectors e = [z, ds0, ds1, ...]. Discard rules compare their cosines."""
        parts = self.parts()
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def parts(self) -> list[Tensor]:
        """The (L, D) tensors that `features` concatenates."""
        return [self.z] if self.deepstack is None else [self.z, *self.deepstack]

    def table(self) -> Tensor:
        """(L, 10) int64: the columns of `COLUMNS`."""
        assert self.grid is not None
        assert self.count is not None
        assert self.last_ns is not None
        columns = (self.index, self.stamp_ns, self.patch, self.place, self.source, self.pose_id)
        return torch.stack(
            [c.long() for c in (*columns, self.grid[:, 0], self.grid[:, 1], self.count, self.last_ns)], dim=1
        )

    @classmethod
    def from_table(cls, features: Tensor, table: Tensor, depth: int) -> TokenBatch:
        """Make a batch from `features` and `table`. `depth` is the number of deepstack rows, K."""
        width = features.shape[1] // (1 + depth)
        deepstack = features[:, width:].unflatten(1, (depth, width)).movedim(1, 0) if depth else None
        index, stamp, patch, place, source, pose, height, wide, count, last = table.unbind(1)
        return cls(
            features[:, :width],
            deepstack,
            index,
            stamp,
            patch,
            place,
            source,
            pose,
            torch.stack([height, wide], dim=1),
            count,
            last,
        )

    def select(self, rows: Tensor | slice) -> TokenBatch:
        """Select rows by a slice, a bool mask or int64 positions."""
        # Rows of a batch have its dtypes already. Not converting them again halves the time of this call, which the
        # event memory makes for each patch and each token of sound.
        piece = object.__new__(TokenBatch)
        for name, value in vars(self).items():
            chosen = value if value is None else value[:, rows] if name == "deepstack" else value[rows]
            object.__setattr__(piece, name, chosen)
        return piece

    def ends_patch(self) -> Tensor:
        """(L,) bool: whether a token is the last one of its temporal patch."""
        assert self.grid is not None
        return self.place.long() == self.grid.long().prod(1) - 1

    def within(self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[int] = ()) -> Tensor:
        """(L,) bool: whether the span overlaps the window (0: no bound) and the source is listed (empty: all)."""
        assert self.last_ns is not None
        mask = self.last_ns >= after_ns
        if before_ns:
            mask &= self.stamp_ns <= before_ns
        if sources:
            mask &= torch.isin(self.source, torch.tensor(list(sources), dtype=torch.int16))
        return mask

    def equals(self, other: TokenBatch) -> bool:
        """Whether all tensors are bit-equal."""
        if (self.deepstack is None) != (other.deepstack is None) or self.z.dtype != other.z.dtype:
            return False
        return torch.equal(self.features(), other.features()) and torch.equal(self.table(), other.table())

    @classmethod
    def concat(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """Concatenate batches of the same widths, in order."""
        stacks = [b.deepstack for b in batches if b.deepstack is not None]
        deepstack = torch.cat(stacks, dim=1) if stacks else None
        rest = [torch.cat([getattr(b, item.name) for b in batches]) for item in fields(cls)[2:]]
        return cls(torch.cat([b.z for b in batches]), deepstack, *rest)

    @classmethod
    def of_patch(
        cls,
        z: Tensor,
        deepstack: Tensor | None = None,
        *,
        grid: tuple[int, int],
        first_index: int,
        stamp_ns: int,
        patch: int,
        source: int = 0,
        pose_id: int = -1,
        last_ns: int | None = None,
    ) -> TokenBatch:
        """Make a batch of all tokens of one temporal patch: (h * w, D) in raster order, with one source and pose.

        `stamp_ns` is the stamp of the first frame, `last_ns` that of the second. `last_ns` defaults to `stamp_ns`.
        """
        length = z.shape[0]
        if z.dim() != 2 or length != grid[0] * grid[1]:
            raise ValueError(f"z: a patch of grid {grid} has {grid[0] * grid[1]} tokens, got shape {tuple(z.shape)}")

        def same(value: int) -> Tensor:
            return torch.full((length,), value, dtype=torch.int64)

        steps = torch.arange(length)
        return cls(
            z,
            deepstack,
            first_index + steps,
            same(stamp_ns),
            same(patch),
            steps,
            same(source),
            same(pose_id),
            torch.tensor(grid, dtype=torch.int32).expand(length, 2),
            last_ns=same(stamp_ns if last_ns is None else last_ns),
        )

    def validate(self) -> None:
        """Raise ValueError if a field is malformed: wrong shape, NaN or Inf, wrong order, negative stamp."""
        if self.z.dim() != 2 or self.z.shape[1] == 0:
            raise ValueError(f"z: expected (L, D), got shape {tuple(self.z.shape)}")
        length = self.z.shape[0]
        if length == 0:
            raise ValueError("z: an empty batch; a call brings at least one token")
        if not self.z.is_floating_point():
            raise ValueError(f"z: expected a floating dtype, got {self.z.dtype}")
        if self.deepstack is not None:
            if self.deepstack.dim() != 3 or tuple(self.deepstack.shape[1:]) != tuple(self.z.shape):
                expected = f"(K, {length}, {self.z.shape[1]})"
                raise ValueError(f"deepstack: expected {expected}, got shape {tuple(self.deepstack.shape)}")
            if self.deepstack.dtype != self.z.dtype:
                raise ValueError(f"deepstack: dtype {self.deepstack.dtype} differs from that of z, {self.z.dtype}")
        for name, tensor in (("z", self.z), ("deepstack", self.deepstack)):
            if tensor is not None and not _finite(tensor):
                raise ValueError(f"{name}: contains NaN or Inf")
        for item in fields(self)[2:]:
            shape = tuple(getattr(self, item.name).shape)
            want = (length, 2) if item.name == "grid" else (length,)
            if shape != want:
                raise ValueError(f"{item.name}: expected shape {want}, got {shape}")
        assert self.grid is not None
        assert self.count is not None
        assert self.last_ns is not None
        for name, value, least in (
            ("index", self.index, 0),
            ("stamp_ns", self.stamp_ns, 0),
            ("patch", self.patch, 0),
            ("place", self.place, 0),
            ("source", self.source, 0),
            ("grid", self.grid, 1),
            ("count", self.count, 1),
        ):
            if int(value.min()) < least:
                raise ValueError(f"{name}: expected values >= {least}, got {int(value.min())}")
        if bool((self.index[1:] <= self.index[:-1]).any()):
            raise ValueError("index: expected strictly increasing original indices")
        if bool((self.last_ns < self.stamp_ns).any()):
            raise ValueError("last_ns: earlier than stamp_ns")
        if bool((self.place.long() >= self.grid.long().prod(1)).any()):
            raise ValueError("place: beyond the grid of its patch")


def _finite(values: Tensor) -> bool:
    """Whether all values are finite. Tries the sum first, which needs no mask as large as the values."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())
