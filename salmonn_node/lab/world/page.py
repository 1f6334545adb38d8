"""HTML page of questions and their evidence at model resolution, for people to answer by eye and ear."""

from __future__ import annotations

import base64
import html
import io
import wave

import cv2
import numpy as np
import numpy.typing as npt

from salmonn_node.evaluation.questions import EvidenceInterval, QuestionRecord
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.shards import Shard, make_shard
from salmonn_node.lab.world.sheet import clock
from salmonn_node.lab.world.stream import World
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.stream.observations import SAMPLE_RATE_HZ, SECOND_NS

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #28282c; background: #faf9f6; max-width: 1080px;
       margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #d8d6d0; padding: 1rem 0 }
h2 { font-size: 1.05rem; margin: 0 0 .5rem }
h2 small { font-weight: normal; color: #8c8c92; margin-left: .6rem }
figure { display: inline-block; margin: 0 .6rem .4rem 0; vertical-align: top }
figcaption { font-size: .8rem; color: #8c8c92 }
img.frame { image-rendering: pixelated; width: 256px }
summary { cursor: pointer; color: #b23c1e }
audio { height: 2rem; vertical-align: middle }
"""


def _png(image: npt.NDArray[np.uint8]) -> str:
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def _wav(samples: npt.NDArray[np.int16]) -> str:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(out.getvalue()).decode()


def _spectrogram(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Draw a spectrogram: time to the right, frequency (to 8 kHz) upwards, 60 dB of range."""
    window, hop = 512, 160
    sound = np.pad(samples / 32767.0, (0, window))
    starts = np.arange(0, len(sound) - window, hop)
    frames = sound[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = 20 * np.log10(np.abs(np.fft.rfft(frames))[:, : window // 2].T[::-1] + 1e-6)
    level = np.clip((power - power.max() + 60) / 60 * 255, 0, 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)


def _evidence(shard: Shard, evidence: EvidenceInterval) -> str:
    start, end = ((t - START_NS) / SECOND_NS for t in (evidence.start_ns, evidence.end_ns))
    span = f"{clock(start)} to {clock(end)}"
    if evidence.modality == "vision":
        middle = min(round((start + end) / 2), len(shard.frames) - 1)
        picture = f'<img class="frame" alt="frame" src="{_png(shard.frames[middle])}">'
        return f"<figure>{picture}<figcaption>seen {span}</figcaption></figure>"
    first, last = int(start), min(int(np.ceil(end + 0.2)), len(shard.audio))
    samples = shard.audio[first:last].reshape(-1)
    sound = f'<img alt="spectrogram" height="96" src="{_png(_spectrogram(samples))}"><br>'
    sound += f'<audio controls src="{_wav(samples)}"></audio>'
    return f"<figure>{sound}<figcaption>heard {span}</figcaption></figure>"


def _answer(record: QuestionRecord) -> str:
    expected = record.expected
    if not record.answerable:
        return f"not observed (near miss: {record.near_miss})"
    if record.answer_type == "TIME":
        start = (expected.event_start_ns or 0) - START_NS
        return f"at {clock(start / SECOND_NS)}, within {record.tolerance.time_s:g} s"
    if record.answer_type == "POSITION":
        x, y, _ = expected.position_m or (0.0, 0.0, 0.0)
        whose = "the robot" if expected.pose_kind == "OBSERVER" else "the thing"
        return f"{whose} at ({x:.2f}, {y:.2f}) m, {expected.text}, within {record.tolerance.position_m:g} m"
    if record.answer_type == "DURATION":
        return f"{expected.duration_s:g} s"
    if record.answer_type == "COUNT":
        return str(expected.count)
    return expected.text


def page(shard: Shard, records: list[QuestionRecord]) -> str:
    """Return a self-contained page with folded answers."""
    height, width = shard.frames.shape[1:3]
    parts = []
    for record in records:
        shown = "".join(_evidence(shard, e) for e in record.evidence[-6:]) or "<p>(the stream holds no evidence)</p>"
        asked = clock((record.ask_ns - START_NS) / SECOND_NS)
        options = f" ({html.escape(' / '.join(record.choices))})" if record.choices else ""
        details = f"{record.kind}, asked at {asked}"
        if record.pixels:
            details += f", {record.pixels * width * height:.0f} pixels"
        if record.snr_db is not None:
            details += f", {record.snr_db:.0f} dB"
        parts.append(
            f"<section><h2>{html.escape(record.text)}{options}<small>{details}</small></h2>{shown}"
            f"<details><summary>answer</summary>{html.escape(_answer(record))}</details></section>"
        )
    title = f"World {shard.seed}: {len(records)} questions at {width}x{height} pixels"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        "<p>Frames are enlarged, not refined. Can you answer from what is shown?</p>"
        f"{''.join(parts)}</body></html>\n"
    )


def check_page(world: World, questions: int, width: int) -> str:
    """Render a world at model resolution, draw random questions, and make their page. Needs OpenGL."""
    shard = make_shard(world, width, width * 9 // 16)
    return page(shard, ask(shard.truth, world.seed, questions, name=f"world-{world.seed}"))
