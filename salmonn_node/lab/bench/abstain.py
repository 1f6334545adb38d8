"""Abstention benchmark: show the network photographs and unknown voices, then ask about its own world.

None of these questions has an answer. The right reply is NOT_OBSERVED, "no", 0, or a confidence below one half. Any
other reply is invented.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soxr
from rich.table import Table

from salmonn_node.answering.answerer import Answerer
from salmonn_node.evaluation.questions import QuestionRecord, read_questions
from salmonn_node.ingest.observer import Observer
from salmonn_node.live.demo_recording import QUESTIONS
from salmonn_node.model.checkpoint import load
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS, AudioChunk, Frame, Pose

START_NS = 1_767_225_600 * SECOND_NS
HALF = 0.5
PICTURES = (".jpg", ".jpeg", ".png")
# Photographs from scikit-image's wheel that a robot's camera could have taken.
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "motorcycle_left.png")
# Voices of espeak-ng and sentences that the world does not use.
VOICES = ("en", "en-029", "en-us+croak", "en-us+f5", "en-us+m1", "en-gb-x-gbclan")
SENTENCES = "The weather will be fine in the afternoon. Please put the shopping on the table, I am in a hurry."


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return one row per picture and per sound, and one row for all of each kind."""
    model = load(args.checkpoint)
    asked = list(read_questions(QUESTIONS))
    silence = np.zeros(args.seconds * SAMPLE_RATE_HZ, np.float32)
    grey = np.full((360, 640, 3), 127, np.uint8)
    shown = [_row(name, model, asked, image, silence, args.seconds) for name, image in _images(args.images)]
    played = [_row(name, model, asked, grey, _lasting(wav, len(silence)), args.seconds) for name, wav in _sounds(args)]
    results: dict[str, Any] = {"checkpoint": f"{model.checkpoint.name} {model.checkpoint.id}"}
    for title, rows in (("pictures, silence", shown), ("sounds, a grey wall", played)):
        if rows:
            results[title] = [*rows, _sum(rows)]
    return results


def tables(results: dict[str, Any]) -> list[Table]:
    """Make one table for pictures and one for sounds."""
    out = []
    for title, rows in results.items():
        if isinstance(rows, list):
            table = Table(*rows[0], title=f"{title}: {results['checkpoint']}")
            for row in rows:
                table.add_row(*map(str, row.values()))
            out.append(table)
    return out


def _images(folder: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    if folder is None:
        found = importlib.util.find_spec("skimage")
        if found is None or found.origin is None:
            raise ValueError("--images: give a folder, scikit-image with its photographs is not installed")
        paths = [Path(found.origin).parent / "data" / name for name in PHOTOGRAPHS]
    else:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"--images: {path} cannot be read as an image")
        yield path.name, np.ascontiguousarray(image[:, :, ::-1])


def _sounds(args: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    if args.sounds is None:
        if importlib.util.find_spec("espeakng_loader"):
            from salmonn_node.lab.world.speech import say_anything

            for voice in VOICES:
                yield f"espeak-ng {voice}", say_anything(SENTENCES, voice)
        return
    for path in sorted(args.sounds.glob("*.wav")):
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise ValueError(f"--sounds: {path} has {8 * file.getsampwidth()} bits a sample, not 16")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
            mono = samples.astype(np.float32).mean(axis=1) / 32_768
            yield path.name, soxr.resample(mono, file.getframerate(), SAMPLE_RATE_HZ).astype(np.float32)


def _lasting(samples: np.ndarray, count: int) -> np.ndarray:
    """Repeat a sound to (count,) samples. Raises ValueError if it is empty."""
    if not len(samples):
        raise ValueError("--sounds: a sound without a sample")
    return np.resize(samples, count).astype(np.float32)


def _row(
    name: str, model: VideoSalmonnS, asked: list[QuestionRecord], image: np.ndarray, sound: np.ndarray, seconds: int
) -> dict[str, Any]:
    observer = Observer(model, inline=True)
    for t in range(seconds):
        stamp = START_NS + t * SECOND_NS
        observer.submit(Pose(stamp, "map", np.array([0.1 * t, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])))
        # A robot is never perfectly still, so shift the picture a little.
        observer.submit(Frame(stamp, "front", np.roll(image, 4 * t, axis=1), "front"))
        second = sound[t * SAMPLE_RATE_HZ : (t + 1) * SAMPLE_RATE_HZ, None]
        observer.submit(AudioChunk(stamp, "mic", second, SAMPLE_RATE_HZ, "mic"))
    observer.finish()
    answerer = Answerer(observer, max_new_tokens=12)
    counts = dict.fromkeys(("questions", "not observed", "no or 0", "less than half sure", "invented"), 0)
    sure = []
    for record in asked:
        question = replace(record.question(), before_ns=0, after_ns=0)
        answer = answerer.ask(question, deadline=time.monotonic() + 600)
        counts["questions"] += 1
        counts[_kind(answer)] += 1
        sure += [answer.confidence] if math.isfinite(answer.confidence) else []
    observer.close()
    return {"of": name, **counts, "mean confidence": round(float(np.mean(sure)), 3) if sure else "-"}


def _kind(answer: Answer) -> str:
    if answer.error_code != ErrorCode.NONE:
        raise RuntimeError(f"{answer.error_code.name}: {answer.error_msg}")
    if answer.outcome == Outcome.NOT_OBSERVED:
        return "not observed"
    nothing = {AnswerType.BINARY: not answer.binary, AnswerType.COUNT: answer.count == 0}
    if nothing.get(answer.answer_type, False):
        return "no or 0"
    return "less than half sure" if answer.confidence < HALF else "invented"


def _sum(rows: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {key: sum(row[key] for row in rows) for key in rows[0] if key not in ("of", "mean confidence")}
    known = [row["mean confidence"] for row in rows if row["mean confidence"] != "-"]
    return {"of": "all", **counts, "mean confidence": round(float(np.mean(known)), 3) if known else "-"}
