"""The demo without ROS: the same bag and questions through the same memory, in one process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from salmonn_node.live.demo_setup import NODE_PARAMETERS, DemoOptions, Teller, prepare, span_of
from salmonn_node.live.demo_sheet import DemoAnswer, broken_promise, show, write
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.replay.job import Job, JobSettings, run_job
from salmonn_node.stream.answers import Answer, ErrorCode


def run_demo_offline(options: DemoOptions, console: Console) -> bool:
    """Replay the demo's bag and print its table; True when every answer keeps its promises, be it right or wrong.

    Raises:
        ValueError: the output folder cannot be used, or the bag cannot be replayed.
    """
    tell = Teller(console)
    recording = prepare(options)
    span = span_of(recording.bag)
    tell.done(f"bag: {span.duration_s:.0f} s of camera, microphone and pose; offline, without ROS")
    settings = JobSettings(
        network=NetworkSettings(checkpoint=options.checkpoint, max_new_tokens=int(NODE_PARAMETERS["max_new_tokens"])),
        map_id=NODE_PARAMETERS["map_id"],
    )
    job = Job(recording.bag, tuple(recording.questions), settings, options.output / "replay")
    with console.status("replaying"):
        result = run_job(job)
    if result.error:
        raise ValueError(result.error)
    tell.done(f"{len(result.answers)} questions asked, each at its time in the stream")
    given = {answered.id: answered.answer for answered in result.answers}
    asked = []
    for record in recording.questions:
        answer = given.get(record.id, Answer(error_code=ErrorCode.MODEL_ERROR, error_msg="no answer came"))
        answer = replace(answer, latency_s=result.timings.get(record.id, answer.latency_s))
        wrong = broken_promise(record, answer, span, record.ask_ns, NODE_PARAMETERS["map_id"])
        asked.append(DemoAnswer(record, record.ask_ns, False, answer, wrong))
    held = _held(result.facts)
    write(options.output, asked, span, held)
    show(console, asked, span, held, options.checkpoint)
    problems = [f"{a.record.text} {a.wrong}" for a in asked if a.wrong]
    for problem in problems:
        console.print(f"[red]✗ {problem}[/red]")
    console.print(
        f"{len(asked)} questions in {tell.elapsed_s:.0f} s, offline: the node was not "
        f"started.\nPictures of the evidence and answers.json: {options.output}/"
    )
    return not problems


def _held(facts: dict[str, Any]) -> dict[str, Any]:
    """What the memory holds, under the names of MemoryStatus."""
    (visual, audio), (visual_budget, audio_budget) = facts["tokens"], facts["budgets"]
    return {
        **{name: facts[name] for name in ("frames", "audio_s", "poses", "drops")},
        "visual_tokens": visual,
        "audio_tokens": audio,
        "visual_budget": visual_budget,
        "audio_budget": audio_budget,
        "checkpoint_id": facts["checkpoint"],
        "checkpoint_trained": facts["trained"],
    }
