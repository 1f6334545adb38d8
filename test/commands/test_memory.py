"""`salmonn memory` lists, draws, verifies, exports and cleans, and says in its exit status whether all is well."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import cv2
import pytest
import torch
from storage.ledger import IDENTITY, observe, reopen

from salmonn_node.cli import main
from salmonn_node.memory.stream_memory import StreamMemory, TokenBatch, TokenMemoryConfig
from salmonn_node.storage.state import State
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.observations import SECOND_NS


def stored(root: Path, minutes: int = 5) -> Path:
    """A memory with one snapshot of a stream memory: 4 tokens every 2 s, and 2 of sound a second."""
    config = TokenMemoryConfig(budget=4096, step=1024, rule="fifo")
    memory = StreamMemory(None, config, config)
    torch.manual_seed(0)
    for n in range(minutes * 30):
        stamp_ns = 1_700_000_000 * SECOND_NS + n * 2 * SECOND_NS
        index, patch = memory.next_visual
        batch = TokenBatch.of_patch(
            torch.randn(4, 8),
            None,
            grid=(2, 2),
            first_index=index,
            stamp_ns=stamp_ns,
            patch=patch,
            source=0,
            pose_id=-1,
        )
        memory.observe_visual(batch, (2, 2))
    tensors, values = memory.to_tensors()
    store = MemoryStore(root, "flat", IDENTITY)
    named = {f"memory.{name}": tensor for name, tensor in tensors.items()}
    assert store.snapshot(State(named, {"memory": values}, 1_700_000_000 * SECOND_NS, stamp_ns))
    store.close()
    return store.place.directory


def command(root: Path, *arguments: str) -> int:
    return main(["memory", "--directory", str(root), *arguments])


def test_ls(tmp_path: Path, capsys):
    assert command(tmp_path, "ls") == 0
    assert "no memories" in capsys.readouterr().out
    stored(tmp_path)
    store, ledger, _ = reopen(tmp_path, "busy")
    assert command(tmp_path, "ls") == 0
    out = capsys.readouterr().out
    assert "flat" in out
    assert "in use" in out
    store.close()


def test_info_draws_what_is_kept(tmp_path: Path, capsys):
    stored(tmp_path)
    picture = tmp_path / "timeline.png"
    assert command(tmp_path, "info", "flat", "--png", str(picture)) == 0
    out = capsys.readouterr().out
    assert "600 tokens, at most 120 in 60 s" in out
    assert "█████" in out
    assert "2023-11-14" in out
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert (drawn < 250).any()


def test_names_are_no_paths(tmp_path: Path, capsys):
    stored(tmp_path / "root")
    for name in ("../root/flat", "/etc", "nothing"):
        assert command(tmp_path / "root", "info", name) == 2
        assert "salmonn memory:" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["snapshots/00000002/state.safetensors", "journal/00000003.log"])
def test_verify_names_what_is_damaged(tmp_path: Path, file: str, capsys):
    store, ledger, _ = reopen(tmp_path)
    observe(store, ledger, 12, snapshot_every=5)
    store.close()
    assert command(tmp_path, "verify") == 0
    capsys.readouterr()
    victim = tmp_path / "m" / file
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    victim.write_bytes(data)
    assert command(tmp_path, "verify", "m") == 1
    out = capsys.readouterr().out
    assert victim.name in out
    assert "snapshot 1 is whole" in out


def test_export_can_be_used_elsewhere(tmp_path: Path, capsys):
    store, ledger, _ = reopen(tmp_path / "here")
    observe(store, ledger, 12, snapshot_every=5)
    assert command(tmp_path / "here", "export", "m", str(tmp_path / "m.tar")) == 2
    assert "in use" in capsys.readouterr().err
    expected = ledger.print()
    store.close()
    assert command(tmp_path / "here", "export", "m", str(tmp_path / "m.tar")) == 0
    assert stat.S_IMODE((tmp_path / "m.tar").stat().st_mode) == 0o600
    assert command(tmp_path / "here", "export", "m", str(tmp_path / "m.tar")) == 2
    shutil.unpack_archive(tmp_path / "m.tar", tmp_path / "there")
    store, ledger, _ = reopen(tmp_path / "there")
    assert ledger.print() == expected
    store.close()


def test_gc_keeps_what_a_restore_needs(tmp_path: Path, capsys):
    store, ledger, _ = reopen(tmp_path, keep=5)
    observe(store, ledger, 23, snapshot_every=5)
    expected = ledger.print()
    store.close()
    (tmp_path / "m" / "snapshots" / ".building-00000009").mkdir()
    victim = tmp_path / "m" / "snapshots" / "00000003" / "manifest.json"
    victim.write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert command(tmp_path, "gc", "--keep", "2", "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert command(tmp_path, "gc", "--keep", "2") == 0
    assert sorted(p.name for p in (tmp_path / "m" / "snapshots").iterdir()) == ["00000002", "00000003", "00000004"]
    assert command(tmp_path, "gc", "--keep", "1", "--damaged") == 0
    assert sorted(p.name for p in (tmp_path / "m" / "snapshots").iterdir()) == ["00000004"]
    store, ledger, _ = reopen(tmp_path)
    assert ledger.print() == expected
    store.close()
