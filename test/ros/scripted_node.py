"""The real node with the tiny network, whose answers to a few texts are scripted, so that tests can make it slow.

"hang": generates until it is told to stop. "deaf 1.5": generates 1.5 s and does not listen. "say a b": three pieces.
"point 3": the evidence is the token at that place of the newest pictures.
"after 3": to a yes-or-no question, yes from the third on; "never": no. Everything else is the network's own.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

from salmonn_node.model.generation import Generation
from salmonn_node.ros.node import main
from salmonn_node.runtime.build import Backend, build_backend, load_model
from salmonn_node.runtime.settings import Settings


def scripted(settings: Settings) -> Any:
    model = load_model(settings)
    generate = model.answer
    asked: Counter[str] = Counter()

    def answer(
        self: Any,
        question: str,
        view: Any,
        *,
        max_new_tokens: int,
        should_stop: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        **typed: Any,
    ) -> Generation:
        word, _, rest = question.partition(" ")
        if word not in ("hang", "deaf", "say", "point", "after", "never"):
            limits: Any = {"max_new_tokens": max_new_tokens, "should_stop": should_stop, "on_text": on_text}
            return generate(question, view, **limits, **typed)
        stopped, options = False, None
        if typed.get("options") and word in ("after", "never"):
            asked[question] += 1
            yes = word == "after" and asked[question] >= int(rest.split()[0])
            options = torch.tensor([0.0, -5.0] if yes else [-5.0, 0.0])
        if word == "hang":
            while not should_stop():
                time.sleep(0.005)
            stopped = True
        elif word == "deaf":
            time.sleep(float(rest))
        else:
            for piece in rest.split():
                if on_text is not None:
                    on_text(piece)
                time.sleep(0.1)
        even = torch.full((len(view),), 1.0 / max(1, len(view)))
        if word == "point":
            seen = view.visual
            there = (seen.place == int(rest)) & (seen.stamp_ns == seen.stamp_ns.max())
            even = torch.cat([there.float(), torch.zeros(len(view) - len(seen))])
            even /= even.sum()
        return Generation(rest, [], [], even, stopped=stopped, option_logprobs=options)

    model.answer = MethodType(answer, model)
    return model


def build(settings: Settings) -> Backend:
    return build_backend(settings, scripted)


if __name__ == "__main__":
    sys.exit(main(sys.argv, build))
