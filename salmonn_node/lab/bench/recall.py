"""Recall benchmark: do Hessian-free steps help fast weights recall facts in a repetitive background?

The stream has mini-batches of 64 tokens. Two tokens each bind one of 128 keys to one of 8 values. The others repeat
four background patterns with noise. Keys recur in random order, so after 64 updates every key has a new value. Then
`TTTLayer.recall` gets a key, and a linear head predicts its value (chance 0.125). Everything but the fast weights is
meta-trained, by backpropagation through segments of eight updates. `carry` keeps the fast weights across segments.
There is no token memory, no long-span term and no positions, so only the fast weights count.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from salmonn_node.ttt.layer import TTTConfig, TTTLayer
from salmonn_node.ttt.state import TTTState

HIDDEN, HEADS, INNER, MINI_BATCH = 64, 2, 64, 64
KEYS, VALUES, PATTERNS, FACTS = 128, 8, 4, 2
SEGMENT, BATCH, LEARNING_RATE = 8, 8, 1e-2
# Many young streams, few old ones with many probes: (streams, checkpoints in updates, probes, updates between probes)
YOUNG = (64, (8, 32, 64), 1, 0)
OLD = (4, (160, 480, 1_600, 5_000, 10_000), 16, 8)
AGES = ((1, 4), (5, 8), (9, 16), (17, 32), (33, 64))


@dataclass(frozen=True)
class UpdateArm:
    """One way to update the fast weights, and to meta-train the rest."""

    name: str
    optimizer: str
    iterations: int = 1
    rate: float = 1.0  # eta = rate * sigmoid(.)
    decay: float = 0.01
    carry: bool = True


ARMS = (
    UpdateArm("static (control)", "static"),
    *(UpdateArm(f"SGD {rate:g}", "sgd", rate=rate) for rate in (0.003, 0.01, 0.03, 0.1)),
    *(UpdateArm(f"HF K={k}", "hf", iterations=k) for k in (1, 2, 4)),
    UpdateArm("HF K=2, no decay", "hf", iterations=2, decay=0.0),
    UpdateArm("HF K=2, no carry", "hf", iterations=2, carry=False),
    UpdateArm("damped K=8", "damped", iterations=8),
)


class FactStream:
    """B streams of facts and background. It knows the value of each key, and since which update it has it."""

    def __init__(self, batch: int, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        world = torch.Generator().manual_seed(7)  # the same keys, values and patterns for every seed
        self.keys = 2 * F.normalize(torch.randn(KEYS, HIDDEN, generator=world), dim=-1) * HIDDEN**0.25
        self.values = 2 * F.normalize(torch.randn(VALUES, HIDDEN, generator=world), dim=-1) * HIDDEN**0.25
        self.patterns = 2 * F.normalize(torch.randn(PATTERNS, HIDDEN, generator=world), dim=-1) * HIDDEN**0.25
        self.updates = 0
        self.order = torch.empty(batch, 0, dtype=torch.int64)
        self.bound = torch.zeros(batch, KEYS, dtype=torch.int64)
        self.since = torch.full((batch, KEYS), -(10**9))

    def mini_batch(self) -> Tensor:
        """Return the next mini-batch of every stream: (B, 64, hidden)."""
        batch = self.bound.shape[0]
        if self.order.shape[1] == 0:
            self.order = torch.rand(batch, KEYS, generator=self.random).argsort(-1)
        keys, self.order = self.order[:, :FACTS], self.order[:, FACTS:]
        values = torch.randint(VALUES, (batch, FACTS), generator=self.random)
        self.updates += 1
        self.bound.scatter_(1, keys, values)
        self.since.scatter_(1, keys, self.updates)
        tokens = self.patterns[torch.randint(PATTERNS, (batch, MINI_BATCH), generator=self.random)]
        rows = torch.rand(batch, MINI_BATCH, generator=self.random).argsort(-1)[:, :FACTS, None].expand(-1, -1, HIDDEN)
        tokens = tokens.scatter(1, rows, self.keys[keys] + self.values[values])
        return tokens + 0.1 * torch.randn(tokens.shape, generator=self.random)

    def ages(self) -> Tensor:
        """Updates since each key was bound, including the one that bound it: (B, KEYS)."""
        return self.updates + 1 - self.since


class Recall(nn.Module):
    """The layer, and the head that predicts a value."""

    def __init__(self, arm: UpdateArm) -> None:
        super().__init__()
        self.layer = TTTLayer(
            TTTConfig(
                hidden_size=HIDDEN,
                num_heads=HEADS,
                inner_size=INNER,
                mini_batch=MINI_BATCH,
                base_lr=arm.rate * HIDDEN / HEADS * MINI_BATCH,
                lag_distance=0,
                optimizer=arm.optimizer,  # type: ignore[arg-type]
                cg_iterations=arm.iterations,
                decay=arm.decay,
                rotary=False,
            )
        )
        with torch.no_grad():
            self.layer.W1.normal_(std=0.2)
            self.layer.W2.normal_(std=0.2)
            # Start with wq and wk such that a key alone and a key with its value look the same.
            for projection in (self.layer.wk, self.layer.wv, self.layer.wo):
                nn.init.orthogonal_(projection.weight)
                nn.init.zeros_(projection.bias)
            self.layer.wq.load_state_dict(self.layer.wk.state_dict())
        self.marker = nn.Parameter(torch.zeros(HIDDEN))
        self.head = nn.Linear(HIDDEN, VALUES)

    def observe(self, stream: FactStream, state: TTTState, updates: int) -> None:
        """Advance all streams by `updates` updates."""
        positions = torch.zeros(MINI_BATCH, 3, dtype=torch.int64)
        for _ in range(updates):
            self.layer.observe(stream.mini_batch(), positions, state)

    def logits(self, stream: FactStream, state: TTTState, keys: Tensor) -> Tensor:
        """Recall values for keys (B, Q): (B, Q, VALUES)."""
        return self.head(self.layer.recall(stream.keys[keys] + self.marker, state))


def meta_train(arm: UpdateArm, seed: int, steps: int) -> tuple[Recall, dict[str, float]]:
    """Train through segments of eight updates. Even with carried weights, a stream restarts now and then."""
    torch.manual_seed(seed)
    model, stream = Recall(arm), FactStream(BATCH, 1_000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    state = model.layer.init_state(BATCH, differentiable=True)
    skipped, began = 0, time.process_time()
    for _ in range(steps):
        state = _restart(model.layer.init_state(BATCH, differentiable=True), state.detach(), stream, arm.carry)
        model.observe(stream, state, SEGMENT)
        keys = stream.ages().argsort(dim=-1, stable=True)[:, : SEGMENT * FACTS]
        loss = F.cross_entropy(model.logits(stream, state, keys).flatten(0, 1), stream.bound.gather(1, keys).flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if norm.isfinite():
            optimizer.step()
        else:
            skipped += 1
            state = model.layer.init_state(BATCH, differentiable=True)
        schedule.step()
    spent = time.process_time() - began
    return model, {"train_loss": loss.item(), "train_s": spent, "step_ms": 1e3 * spent / steps, "skipped": skipped}


def _restart(fresh: TTTState, carried: TTTState, stream: FactStream, carry: bool) -> TTTState:
    """Return fresh weights for every stream, or with `carry` for one stream in ten."""
    if not carry:
        return fresh
    again = torch.rand(fresh.batch, generator=stream.random) < 0.1
    for name in ("W1", "b1", "W2", "b2"):
        new = getattr(fresh, name)
        old = getattr(carried, name)
        setattr(fresh, name, torch.where(again.view(-1, *[1] * (new.dim() - 1)), new, old))
    fresh.damping = torch.where(again[:, None], fresh.damping, carried.damping)
    return fresh


@torch.no_grad()
def evaluate(model: Recall, seed: int, updates: int) -> dict[str, Any]:
    """Return accuracy by the age of a fact, after n updates of fresh streams, for each checkpoint n."""
    table: dict[str, dict[str, float]] = {}
    for streams, checkpoints, probes, spacing in (YOUNG, OLD):
        stream = FactStream(streams, 2_000 + seed)
        state = model.layer.init_state(streams)
        spent = 0.0
        for checkpoint in (c for c in checkpoints if c <= updates):
            right, ages = [], []
            for probe in range(probes):
                began = time.process_time()
                model.observe(stream, state, checkpoint - stream.updates - spacing * (probes - 1 - probe))
                spent += time.process_time() - began
                keys = torch.arange(KEYS).expand(streams, -1)
                right.append((model.logits(stream, state, keys).argmax(-1) == stream.bound).float())
                ages.append(stream.ages())
            table[str(checkpoint)] = _by_age(torch.stack(right), torch.stack(ages))
            table[str(checkpoint)]["weight_norm"] = float(state.W1[0].norm())
    return {"accuracy": table, "update_ms": 1e3 * spent / max(1, stream.updates), "eval_skipped": state.skipped}


def _by_age(right: Tensor, ages: Tensor) -> dict[str, float]:
    row = {"all": float(right[ages <= AGES[-1][1]].mean())}
    for low, high in AGES:
        inside = (ages >= low) & (ages <= high)
        if inside.any():
            row[f"{low}-{high}"] = float(right[inside].mean())
    return row


def inner_flops(arm: UpdateArm) -> int:
    """Operations per token of one update of the fast weights and its read-back, without projections."""
    products = {"static": 2, "sgd": 7, "hf": 7 + 6 * arm.iterations, "damped": 9 + 6 * arm.iterations}[arm.optimizer]
    return products * 2 * HIDDEN * INNER


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run what the results file does not contain yet, seed by seed. Return all results."""
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for arm in ARMS:
            key = f"{arm.name} | seed {seed} | {args.steps} steps | {args.updates} updates"
            if key in results or (args.arms and arm.name not in args.arms):
                continue
            model, training = meta_train(arm, seed, args.steps)
            results[key] = {
                **asdict(arm), "seed": seed, **training, "inner_flops_per_token": inner_flops(arm),
                **evaluate(model, seed, args.updates),
            }  # fmt: skip
            args.results.write_text(json.dumps(results, indent=1))
            print(f"{key}: {results[key]['accuracy']}", flush=True)
    return results


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table of means over seeds: recall of facts up to 8 updates old, recall by age, and cost."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for result in results.values():
        arms.setdefault(result["name"], []).append(result)
    lengths = sorted({int(n) for result in results.values() for n in result["accuracy"]})
    along = Table("arm", "seeds", *(f"{n} updates" for n in lengths), title="Recall of facts 1 to 8 updates old")
    age = Table("arm", *(f"age {low}-{high}" for low, high in AGES), title="Recall by age, after 64 updates")
    cost = Table("arm", "ms a training step", "ms an update of 4 streams", "inner kFLOP a token", title="Cost")
    for name, runs in arms.items():
        young = [_mean([_young(run["accuracy"].get(str(n))) for run in runs]) for n in lengths]
        along.add_row(name, str(len(runs)), *young)
        age.add_row(
            name, *(_mean([run["accuracy"].get("64", {}).get(f"{low}-{high}") for run in runs]) for low, high in AGES)
        )
        steps, updates = ([run[key] for run in runs] for key in ("step_ms", "update_ms"))
        cost.add_row(name, f"{min(steps):.0f}", f"{min(updates):.1f}", f"{runs[0]['inner_flops_per_token'] / 1e3:.0f}")
    return [along, age, cost]


def _young(row: dict[str, float] | None) -> float | None:
    return None if row is None else (row["1-4"] + row["5-8"]) / 2


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else ""
