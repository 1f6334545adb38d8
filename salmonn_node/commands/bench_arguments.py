"""The arguments of each benchmark; they stand here and not beside the benchmark, so that `--help` loads no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def abstain(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench abstain`."""
    parser.add_argument("--images", type=Path, help="folder of .jpg and .png files (photographs of scikit-image)")
    parser.add_argument("--sounds", type=Path, help="folder of 16-bit .wav files (voices of espeak-ng, if installed)")
    parser.add_argument("--seconds", type=int, default=24, help="how long each is shown or played (%(default)s)")
    parser.add_argument("--checkpoint", default="tiny", help="tiny, or a checkpoint folder (%(default)s)")


def album(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench album`."""
    parser.add_argument("--images", type=Path, help="folder of photographs (those of scikit-image)")
    parser.add_argument("--seeds", type=int, default=4, help="streams of each setting (%(default)s)")
    parser.add_argument("--spoilt", type=float, default=0.05, help="share of spoilt pictures (%(default)s)")


def answers(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench answers`."""
    parser.add_argument("--questions", type=int, default=100, help="number asked at once (%(default)s)")
    parser.add_argument("--deadline", type=float, default=2.0, help="deadline of each, seconds (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="questions of each type, one by one (%(default)s)")


def days(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench days`."""
    parser.add_argument("--work", type=Path, default=Path("train_tiny"), help="folder of rendered worlds (%(default)s)")
    parser.add_argument("--days", type=float, default=30.0, help="length of the stream, days (%(default)s)")
    parser.add_argument("--worlds", type=int, default=4, help="worlds of 8 min that come again and again (%(default)s)")
    parser.add_argument("--busy", action="store_true", help="worlds in which more happens, with four times the events")
    parser.add_argument("--newest", type=int, default=0, help="number of the world of the newest hours (%(default)s)")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the newest part, at most 3.5 (%(default)s)")
    parser.add_argument("--questions", type=int, default=240, help="questions at the end (%(default)s)")
    parser.add_argument("--checkpoint", default="tiny", help="tiny, or a checkpoint folder (%(default)s)")


def discard(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench discard`."""
    parser.add_argument("--budgets", type=int, nargs="+", default=[4096], help="tokens kept of 275 400 (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="streams of each scene (%(default)s)")
    parser.add_argument(
        "--static", type=Path, default=Path("test/data/golden/mem_discard.safetensors"), help="a stream that is still"
    )


def endurance(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench endurance`."""
    parser.add_argument("--updates", type=int, default=100_000, help="mini-batches (%(default)s)")
    parser.add_argument("--plot", type=Path, help="write the norms to this HTML page (needs plotly)")


def evidence(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench evidence`."""
    parser.add_argument(
        "--work", type=Path, help="folder of the rendered worlds: measure how often the evidence is right, not the cost"
    )
    parser.add_argument(
        "--checkpoint", default="tiny", help="network to ask; its evidence head is not used (%(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, help="JSON lines, one for each question; what is there is not run again"
    )


def events(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench events`."""
    parser.add_argument("--seeds", type=int, default=3, help="streams of each regime (%(default)s)")
    parser.add_argument("--events", type=int, default=3000, help="events of a stream; 250 are an hour (%(default)s)")
    parser.add_argument("--arms", default="", help="names of arms, with semicolons; all arms when left out")


def facts(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench facts`."""
    parser.add_argument("--work", type=Path, default=Path("train_tiny"), help="folder of encoded worlds (%(default)s)")
    parser.add_argument("--arms", default="static,SGD .01,HF K=1", help="update rules, with commas (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (%(default)s)")
    parser.add_argument("--inner", type=int, default=128, help="hidden channels of each inner model (%(default)s)")
    parser.add_argument("--results", type=Path, help="JSON lines, one for each run; runs found there are not repeated")


def footprint(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench footprint`."""
    parser.add_argument("--checkpoint", required=True, help="a folder, or a name as for `salmonn checkpoint get`")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (%(default)s)")
    parser.add_argument("--weights", default="full", help="full, int8 or int4 (%(default)s)")
    parser.add_argument("--prefill", default="auto", help="auto, exact or cached (%(default)s)")
    parser.add_argument("--visual-tokens", type=int, default=2_048, help="budget of the memory (%(default)s)")
    parser.add_argument("--logits", type=Path, help="file for the logits of each kind of weights")


def gpu(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench gpu`."""
    parts = ("rates", "vision", "audio", "fast_weights", "token_memory", "language", "ingest", "snapshot")
    parser.add_argument("--profile", default="video_salmonn_s_8b", help="network to measure (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="tiny and short; runs without a GPU too")
    parser.add_argument("--root", type=Path, help="folder of TensorRT plans")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each part (%(default)s)")
    parser.add_argument("--only", action="append", choices=parts, help="a part to run; repeat (all)")


def hours(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench hours`; the defaults are three hours at one frame a second."""
    parser.add_argument("--frames", type=int, default=10_800, help="length of the stream (%(default)s)")
    parser.add_argument("--channels", type=int, default=64, help="channels of a token; the 8B model has 4096")
    parser.add_argument("--mini-batch", type=int, default=1_024, help="tokens of one update (%(default)s)")
    parser.add_argument("--visual-budget", type=int, default=16_384, help="visual tokens kept (%(default)s)")
    parser.add_argument("--audio-budget", type=int, default=4_096, help="audio tokens kept (%(default)s)")
    parser.add_argument("--discard-rule", default="place", help="rule of the visual memory (%(default)s)")
    parser.add_argument("--decay", type=float, default=0.01, help="decay of the fast weights (%(default)s)")
    parser.add_argument("--optimizers", nargs="+", default=["hf", "damped", "sgd"], help="update rules (%(default)s)")
    parser.add_argument("--plot", type=Path, help="write the norms of the fast weights to this SVG file")


def ingest(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench ingest`."""
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the sensors send (%(default)s)")
    parser.add_argument("--transport", choices=("raw", "compressed", "both"), default="both", help="of the images")


def memory(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench memory`; the defaults are those of the 8B model, and need about 7 GB of RAM."""
    sizes = ("full", "tiny")
    parser.add_argument("--sizes", nargs="*", choices=sizes, default=sizes, help="sizes of the TTT layer")
    parser.add_argument("--layer-threads", nargs="*", type=int, default=[1, 2], help="threads of the TTT layer's rows")
    parser.add_argument("--seconds", type=float, default=10.0, help="shortest time of a row at full size (%(default)s)")
    parser.add_argument("--budget", type=int, default=16_384, help="tokens that the memory keeps (%(default)s)")
    parser.add_argument("--step", type=int, default=4_096, help="tokens over budget at which it drops (%(default)s)")
    parser.add_argument("--token-width", type=int, default=4_096, help="channels of a token without deepstack")
    parser.add_argument("--deepstack", type=int, default=3, help="deepstack rows of a token (%(default)s)")
    parser.add_argument("--rule", choices=("released", "paper"), default="released", help="(%(default)s)")
    parser.add_argument("--token-steps", type=int, default=2, help="steps to time (%(default)s)")


def model(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench model`."""
    parser.add_argument("--seconds", type=int, default=300, help="length of the stream that is timed (%(default)s)")
    parser.add_argument("--frames", type=int, default=1_000, help="frames before ten questions (%(default)s)")


def overhead(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench overhead`."""
    parser.add_argument("--work", type=Path, default=Path("train_tiny"), help="folder of rendered worlds (%(default)s)")
    parser.add_argument("--block", type=int, default=16, help="seconds of stream in turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="blocks of each arm (%(default)s)")
    parser.add_argument("--questions", type=int, default=60, help="questions asked of both (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="times that each is asked (%(default)s)")
    parser.add_argument("--checkpoint", default="tiny", help="tiny, or a checkpoint folder (%(default)s)")


def persist(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench persist`."""
    shapes = ("tiny", "8B")
    parser.add_argument("--shapes", nargs="+", default=shapes, choices=shapes, help="sizes of the memory")
    parser.add_argument("--directory", type=Path, help="disk to measure (that of temporary files)")
    parser.add_argument("--snapshots", type=int, default=3, help="snapshots of each shape (%(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="seconds of stream to journal (%(default)s)")
    parser.add_argument("--period", type=float, default=300.0, help="seconds between snapshots (%(default)s)")


def reader(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench reader`."""
    work = Path("bench/out/worlds")
    parser.add_argument("--work", type=Path, default=work, help="rendered worlds are kept here (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of each world (%(default)s)")
    parser.add_argument("--first", type=float, default=0.0, help="only the first minutes of each; 0: all (%(default)s)")
    parser.add_argument("--worlds", type=int, default=3, help="worlds of each density (%(default)s)")
    parser.add_argument("--pictures", type=int, default=4, help="most pictures of an answer (%(default)s)")
    parser.add_argument("--log-chars", type=int, default=40_000, help="longest log that is sent (%(default)s)")
    parser.add_argument("--internal", action="store_true", help="also ask the tiny network, which takes minutes")


def recall(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench recall`."""
    results = Path("bench/out/recall.json")
    parser.add_argument("--results", type=Path, default=results, help="runs are added here, and not repeated")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="meta-training steps (%(default)s)")
    parser.add_argument("--updates", type=int, default=10_000, help="length of the evaluated streams (%(default)s)")
    parser.add_argument("--arms", nargs="*", help="names of arms, as in the table (all)")


def soak(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench soak`."""
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the campaign (%(default)s)")
    parser.add_argument("--planners", type=int, default=3, help="planners that ask all the time (%(default)s)")
    parser.add_argument("--flood", type=int, default=50, help="malformed messages in each flood (%(default)s)")
    parser.add_argument("--kill-share", type=float, default=0.08, help="share of the rounds that end in kill -9")
    parser.add_argument("--reset-share", type=float, default=0.03, help="share of the rounds that end in a clock reset")
    parser.add_argument("--clock-back-ms", type=float, default=5.0, help="small steps of the clock (%(default)s ms)")
    parser.add_argument("--seed", type=int, default=0, help="order of the faults (%(default)s)")
    parser.add_argument("--directory", type=Path, help="keep memory and logs here (a temporary folder)")


def video(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn bench video`."""
    parser.add_argument("--seconds", type=int, default=60, help="length of each video (%(default)s)")
    parser.add_argument("--mbit", type=float, default=4.0, help="bit rate, Mbit/s (%(default)s)")
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[30, 300], help="frames from key frame to key frame (%(default)s)"
    )


ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "abstain": abstain,
    "album": album,
    "answers": answers,
    "days": days,
    "discard": discard,
    "endurance": endurance,
    "events": events,
    "evidence": evidence,
    "facts": facts,
    "footprint": footprint,
    "gpu": gpu,
    "hours": hours,
    "ingest": ingest,
    "memory": memory,
    "model": model,
    "overhead": overhead,
    "persist": persist,
    "reader": reader,
    "recall": recall,
    "soak": soak,
    "video": video,
}
