"""A node with a server as the reader is killed between its captions and a snapshot, and has the words afterwards.

The server is a STUB. It writes words for pictures, and writes down what was said in sounds.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray

from salmonn_node.cli import main
from salmonn_node.client import Memory
from salmonn_node.lab.stub_server import StubServer, text_of
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.live.demo_recording import BAG
from salmonn_node.live.processes import end, free_domain, play, spun_node
from salmonn_node.stream.answers import ErrorCode

from .harness import PATIENCE_S, SECOND_NS, NodeProcess
from .test_oracle import wait

pytestmark = pytest.mark.ros
SECONDS = 28  # two words are said, and they ended more than 10 s before the end
WORDS = re.compile(r"^\d+ \| (.*(?:a red mug \d+|says: hello))$", re.MULTILINE)


def test_words_survive_a_kill_before_the_snapshot(tmp_path: Path) -> None:
    assert main(["bag", "cut", str(BAG), str(tmp_path / "bag"), "--duration", str(SECONDS)]) == 0
    domain = free_domain()
    values: dict[str, str] = {}
    logs: list[str] = []
    captions: list[str] = []

    def script(request: dict) -> str:
        text = text_of(request)
        if "The log:" in text:
            logs.append(text)
            return json.dumps({"events": [1]})
        if "The question" in text:
            return json.dumps({"observed": False, "text": "", "pictures": []})
        captions.append(f"a red mug {len(captions)}")
        return captions[-1]

    def keep(array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.endswith(": reader"):
                values.update({pair.key: pair.value for pair in status.values})

    def written() -> int:
        return int(values.get("captions.written", "-1"))

    def node(name: str, caption_period_s: str) -> NodeProcess:
        parameters = {
            "use_sim_time": "true",
            "cameras": "[front]",
            "microphones": "[mic]",
            "image_transport": "compressed",
            "image_reliability": "reliable",
            "image_depth": "50",
            "audio_type": "salmonn_interfaces/msg/AudioChunk",
            "audio_depth": "1000",
            "pose_type": "none",
            "memory_directory": str(tmp_path / "memories"),
            "snapshot_period_s": "3600.0",
            "diagnostics_period_s": "0.2",
            "threads": "1",
            "reader": "server",
            "server_url": server.url,
            "server_model": "stub",
            "server_transcriber_model": "stub-ears",
            "server_caption_period_s": caption_period_s,
        }
        return NodeProcess(tmp_path / f"{name}.log", parameters, name=name, scripted=False, domain=domain)

    def words(memory: Memory) -> set[str]:
        """The lines with words of the log that the server is sent now."""
        assert memory.ask("is there a mug?", timeout_s=PATIENCE_S).error_code == ErrorCode.NONE
        return set(WORDS.findall(logs[-1]))

    def both(memory: Memory) -> bool:
        lines = words(memory)
        return sum("a red mug" in line for line in lines) >= 3 and any("says: hello" in line for line in lines)

    with StubServer(script) as server, spun_node("planner", domain) as planner:
        planner.create_subscription(DiagnosticArray, "/diagnostics", keep, 10)
        first = node("first", "0.05")
        memory = Memory(planner, "first")
        memory.startup(PATIENCE_S)
        topics = ["/front/image/compressed", "/mic/audio"]
        player = play(tmp_path / "bag", 8.0, tmp_path / "player.log", topics, domain=domain)
        try:
            assert player.wait(PATIENCE_S) == 0, (tmp_path / "player.log").read_text()
            last = START_NS + (SECONDS - 1) * SECOND_NS
            for source in ("front", "mic"):
                wait(lambda s=source: memory.ask("?", timeout_s=5.0, sources=(s,), after_ns=last).error_code != 3)
            wait(lambda: both(memory))
            promised = words(memory)
            wait(lambda: written() >= len(promised))  # counted once they are in the journal
        finally:
            end(player)
            first.end(signal.SIGKILL)
        assert not list((tmp_path / "memories").glob("*/snapshots/*/manifest.json"))
        values.clear()
        again = node("again", "0.0")
        try:
            memory = Memory(planner, "again")
            memory.startup(PATIENCE_S)
            sent, heard = len(captions), len(server.sounds)
            assert promised <= words(memory)
            wait(lambda: written() == 0)
            assert (len(captions), len(server.sounds)) == (sent, heard)
        finally:
            again.end()
