"""Release: write the trained network as a checkpoint with weights, tokenizer, configuration, calibration and card."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from salmonn_node.lab.training.calibrate import Calibrated, calibrate
from salmonn_node.lab.training.work import Work
from salmonn_node.model.checkpoint import load, save
from salmonn_node.model.event_parts import EVENT_HEADS, EVENT_NAMES, QUESTION_HEAD
from salmonn_node.model.network import Network
from salmonn_node.model.own_calibration import CALIBRATION
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

ABOUT = {"name": "tiny", "trained": True}


def assembled(work: Work) -> VideoSalmonnS:
    """Assemble the network to ship. It has no recall read-out, which gained nothing, so nothing reads fast weights."""
    trained = work.network("encoders", "further").eval()
    config = work.config.replace(recall=False)
    network = Network(config)
    network.load_state_dict({k: v for k, v in trained.state_dict().items() if not k.startswith("recall.")})
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return VideoSalmonnS(config, network, work.tokenizer, CheckpointInfo("training", "tiny", trained=True))


def write_checkpoint(work: Work, folder: Path, card: str = "") -> Path:
    """Write the checkpoint, then calibrate it. The calibration names the weights that it was fitted to."""
    torch.set_num_threads(1)
    save(assembled(work), folder, card, ABOUT | {"trained": not work.rehearsal})
    (folder / EVENT_HEADS).parent.mkdir(exist_ok=True)
    for name in (EVENT_HEADS, EVENT_NAMES, QUESTION_HEAD):
        shutil.copy(work.states / Path(name).name, folder / name)
    (folder / CALIBRATION).unlink(missing_ok=True)
    made = calibrate(load(str(folder), read_events=False), work.bank(work.calibrate))
    (folder / CALIBRATION).write_text(made.calibration.model_dump_json(indent=1) + "\n")
    (work.states / "calibrated.txt").write_text(_told(made))
    return folder


def _told(made: Calibrated) -> str:
    risk = ", ".join(f"{risk:.3f} at {share:.2f}" for share, risk in made.risk)
    table = ", ".join(f"{null}: {accuracy:.3f}" for null, accuracy in made.table.items())
    return f"ECE {made.ece:.3f}\nrisk at coverage {risk}\naccuracy by null_above {table}\n"
