"""Training loop of all stages: schedule, optimisers, log, and checkpoints from which a run resumes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Figures = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """Length and learning rate of a stage.

    Attributes:
        name: name of the stage and of its files in the work folder.
        steps: total number of steps.
        rate: peak learning rate of Muon and AdamW. Muon's is matched to AdamW's step size.
        warmup: steps until the peak. Then the rate follows a cosine down to a twentieth.
        clip: maximum norm of the gradient.
        weight_decay: weight decay of matrices.
        log_every, save_every: intervals in steps.
        seed: seed of the data.
    """

    name: str
    steps: int
    rate: float = 2e-3
    warmup: int = 50
    clip: float = 1.0
    weight_decay: float = 0.01
    log_every: int = 25
    save_every: int = 100
    seed: int = 0

    def share(self, step: int) -> float:
        """Learning rate at a step, relative to the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2


def optimisers(modules: Iterable[nn.Module], plan: Plan) -> list[torch.optim.Optimizer]:
    """Make the optimisers: Muon for hidden matrices, AdamW for all other parameters."""
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    seen: set[int] = set()
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            hidden = parameter.dim() == 2 and min(parameter.shape) > 16 and not ("embed" in name or "lm_head" in name)
            (matrices if hidden else rest).append(parameter)
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(
            torch.optim.Muon(matrices, lr=plan.rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    if rest:
        made.append(torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0))
    return made


def run(
    plan: Plan,
    modules: nn.ModuleDict,
    batches: Callable[[int], object],
    loss_of: Callable[[object], tuple[Tensor, Figures]],
    folder: Path,
    evaluate: Callable[[], Figures] | None = None,
    evaluate_every: int = 0,
) -> Iterator[Figures]:
    """Train. Yield the log lines, which are also written to `NAME.jsonl`.

    A step with a loss or gradient that is not finite is skipped and counted. `NAME.pt` holds weights, optimisers and
    step, so a stopped run resumes where it was last saved.

    Args:
        plan: plan of the stage.
        modules: modules to train and save.
        batches: returns the batch of a step. It depends on the step only, so a resumed run sees the same data.
        loss_of: returns (loss, figures) of a batch.
        folder: folder of the state and the log.
        evaluate: returns figures on held-out data.
        evaluate_every: interval in steps. 0: only at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / f"{plan.name}.pt", folder / f"{plan.name}.jsonl"
    made = optimisers(modules.values(), plan)
    first, skipped = 0, 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        modules.load_state_dict(state["modules"])
        for optimiser, values in zip(made, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        first = int(state["step"])
    trained = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    started, sums, count = time.monotonic(), Figures(), 0
    for step in range(first, plan.steps):
        for optimiser in made:
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * plan.share(step)
        modules.train()
        loss, figures = loss_of(batches(step))
        for optimiser in made:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, plan.clip)
        if bool(torch.isfinite(norm)) and bool(torch.isfinite(loss)):
            for optimiser in made:
                optimiser.step()
            for name, value in {"loss": float(loss.detach()), **figures}.items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
        else:
            skipped += 1
        last = step + 1 == plan.steps
        if last or (step + 1) % plan.log_every == 0:
            line = {"step": step + 1.0, "s": round(time.monotonic() - started, 1), "skipped": float(skipped)}
            line |= {name: round(value / max(1, count), 4) for name, value in sums.items()}
            if evaluate is not None and (last or (evaluate_every and (step + 1) % evaluate_every == 0)):
                modules.eval()
                with torch.no_grad():
                    line |= {f"held_out_{name}": round(value, 4) for name, value in evaluate().items()}
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            yield line
            sums, count = Figures(), 0
        if last or (step + 1) % plan.save_every == 0:
            partial = path.with_suffix(".part")
            states = [optimiser.state_dict() for optimiser in made]
            torch.save({"modules": modules.state_dict(), "optimisers": states, "step": step + 1}, partial)
            partial.replace(path)
