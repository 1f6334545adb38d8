"""`salmonn checkpoint get` against a hub on the loopback: whole, cut off, killed, damaged, disk full, wrong id."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from salmonn_node.lab.local_hub import LocalHub
from salmonn_node.lab.random_weights import write_folder

HUB_ID = "Qwen/Qwen3-VL-2B-Instruct"
# The hub's library hands on pieces of ten million bytes.
PIECE = 10 * 1024 * 1024
DEADLINE_S = 240


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small random Qwen3-VL whose weight file is of more than two pieces."""
    folder = tmp_path_factory.mktemp("published") / "weights"
    write_folder(folder, embeddings=100_000)
    return folder


@pytest.fixture
def hub(weights):
    with LocalHub({HUB_ID: weights}) as served:
        yield served


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}


def salmonn(*words: str, env: dict[str, str], **how) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "salmonn_node.cli", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, **how)


# What `salmonn checkpoint get` does before it reads the folder, without importing torch.
DOWNLOAD = "import sys; from salmonn_node.model.checkpoint_download import download; download(sys.argv[1])"


def get(hub: LocalHub, home: Path, name: str = "qwen3-vl-2b", **how) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DOWNLOAD, name]
    env = environment(hub.url, home)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, **how)


def weight_requests(hub: LocalHub) -> list[str]:
    """Ranges of the requests for the weight file."""
    return [span for method, path, span in hub.requests if method == "GET" and path.endswith("model.safetensors")]


def snapshot(hub: LocalHub, home: Path) -> Path:
    return home / "hub" / f"models--{HUB_ID.replace('/', '--')}" / "snapshots" / hub.commit(HUB_ID)


def test_a_checkpoint_comes_whole_and_is_then_found_by_name(hub, weights, tmp_path):
    (weights / "pytorch_model.bin").write_bytes(b"pickled weights that nobody wants")
    first = salmonn("checkpoint", "get", "qwen3-vl-2b", env=environment(hub.url, tmp_path))
    assert first.returncode == 0, first.stderr
    for text in (HUB_ID, f"commit {hub.commit(HUB_ID)}", "licence apache-2.0", "salmonn ask --bag"):
        assert text in first.stdout
    folder = snapshot(hub, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == (weights / "model.safetensors").read_bytes()
    assert not (folder / "pytorch_model.bin").exists()
    hub.requests.clear()
    again = get(hub, tmp_path, name=HUB_ID)
    assert "all here already" in again.stdout
    assert not weight_requests(hub)
    seen = salmonn("checkpoint", "inspect", "qwen3-vl-2b", env=environment("http://127.0.0.1:9", tmp_path))
    assert seen.returncode == 0, seen.stderr
    assert f"commit      {hub.commit(HUB_ID)}" in seen.stdout
    assert f"name        {HUB_ID}" in seen.stdout
    hub.url = "http://127.0.0.1:9"
    offline = get(hub, tmp_path)
    assert offline.returncode == 0, offline.stderr
    assert "cannot be reached" in offline.stdout
    (weights / "pytorch_model.bin").unlink()


def test_a_broken_connection_goes_on_where_it_was(hub, weights, tmp_path):
    hub.faults.cut_after = [PIECE + 1_000, PIECE + 1_000]
    done = get(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert weight_requests(hub) == ["", f"bytes={PIECE}-", f"bytes={2 * PIECE}-"]
    assert (snapshot(hub, tmp_path) / "model.safetensors").read_bytes() == (weights / "model.safetensors").read_bytes()


def test_a_killed_download_goes_on_where_it_was(hub, weights, tmp_path):
    hub.faults.stall_after = PIECE + 1_000
    command = [sys.executable, "-c", DOWNLOAD, "qwen3-vl-2b"]
    with subprocess.Popen(command, env=environment(hub.url, tmp_path), stderr=subprocess.DEVNULL) as process:
        assert hub.stalled.wait(DEADLINE_S)
        partial = next((tmp_path / "hub").rglob("*.resumable"))
        wait_for(lambda: partial.stat().st_size >= PIECE)
        process.kill()
    hub.faults.stall_after = None
    partly = salmonn("checkpoint", "inspect", "qwen3-vl-2b", env=environment(hub.url, tmp_path))
    assert partly.returncode == 1
    assert "Get it with: salmonn checkpoint get qwen3-vl-2b" in partly.stderr
    hub.requests.clear()
    done = get(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "to come" in done.stdout
    assert weight_requests(hub) == [f"bytes={PIECE}-"]
    assert (snapshot(hub, tmp_path) / "model.safetensors").read_bytes() == (weights / "model.safetensors").read_bytes()
    assert not list((tmp_path / "hub").rglob("*.resumable"))


def test_damaged_bytes_are_deleted_and_fetched_anew(hub, tmp_path):
    hub.faults.flip_byte = True
    damaged = get(hub, tmp_path)
    assert damaged.returncode == 1
    assert "arrived damaged" in damaged.stderr
    assert not (snapshot(hub, tmp_path) / "model.safetensors").exists()
    hub.faults.flip_byte = False
    assert get(hub, tmp_path).returncode == 0


def test_a_disk_without_room_is_refused_before_a_byte_comes(hub, tmp_path):
    hub.faults.claimed_size = 1 << 60
    refused = get(hub, tmp_path)
    assert refused.returncode == 1
    assert "set HF_HOME to a folder on another disk" in refused.stderr
    assert not weight_requests(hub)


def test_a_disk_that_fills_up_keeps_what_has_come(hub, tmp_path):
    def no_larger_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE + 5_000, PIECE + 5_000))

    full = get(hub, tmp_path, preexec_fn=no_larger_file)
    assert full.returncode == 1
    assert "is full" in full.stderr
    hub.requests.clear()
    assert get(hub, tmp_path).returncode == 0
    assert weight_requests(hub)[0].startswith("bytes=")


def test_what_the_hub_does_not_have_is_named(hub, weights, tmp_path):
    for name, reason in (
        ("Qwen/Qwen3-VL-3B-Instruct", "no public checkpoint Qwen/Qwen3-VL-3B-Instruct"),
        ("qwen3-vl-2b@v7", "no revision 'v7'"),
        ("no such thing", "neither a folder nor a name"),
    ):
        refused = salmonn("checkpoint", "get", name, env=environment(hub.url, tmp_path))
        assert refused.returncode == 1
        assert reason in refused.stderr
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    hub.folders["someone/old"] = pickled
    refused = get(hub, tmp_path, name="someone/old")
    assert "no .safetensors file" in refused.stderr
    assert "pytorch_model.bin" in refused.stderr


def test_without_a_connection_the_reason_is_said(tmp_path):
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        refused = salmonn("checkpoint", "get", "qwen3-vl-4b", env=environment("http://127.0.0.1:9", tmp_path, **more))
        assert refused.returncode == 1
        assert "qwen3-vl-4b is not in the cache" in refused.stderr


def wait_for(condition) -> None:
    import time

    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
