"""Plans that must not be used are refused before TensorRT sees a byte, by the field that differs: on a real entry."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch

from salmonn_node.engines import manifest, parity, reasons
from salmonn_node.engines.cache import EngineCache
from salmonn_node.engines.machine import Gpu
from salmonn_node.engines.reasons import Reason
from salmonn_node.engines.wrappers import StaticVision, cast_copy, spec_of, weights_sha256

GRID = (4, 6)
ADA = Gpu("8.9", "NVIDIA RTX 4090")


@pytest.fixture
def copy(built, towers, tmp_path):
    """A private copy of the cache's vision entry with a parity record of ADA, its folder, and the spec it serves."""
    _, vision, _, _ = built
    folder = tmp_path / "small" / vision.entry.folder.name
    shutil.copytree(vision.entry.folder, folder)
    found = manifest.read(folder)
    good = parity.Measure("noise0", "tokens", 0.001, 0.01, 0.9999, True)
    parity.Parity([], [good], found.plan_sha256, ADA.compute_capability, ADA.name).write(folder)
    tower = cast_copy(towers.vision, torch.bfloat16)
    spec = spec_of(StaticVision(tower, GRID), "small", "tensorrt_rtx")
    return EngineCache(tmp_path), folder, spec, weights_sha256(tower, "bf16")


def rewrite(folder, change):
    """Change a manifest's fields and give it the key that fits them: a whole plan of something else."""
    values = json.loads((folder / "manifest.json").read_text())
    change(values["fields"])
    values["key"] = manifest.Fields(**values["fields"]).key
    (folder / "manifest.json").write_text(json.dumps(values))


def refusal(copy, device=ADA) -> Reason:
    cache, _, spec, sha256 = copy
    found = cache.find(spec, sha256, device)
    assert isinstance(found, Reason)
    return found


def test_a_good_entry_is_found(copy):
    cache, folder, spec, sha256 = copy
    assert cache.find(spec, sha256, ADA).folder == folder
    assert cache.find(spec, sha256, None).folder == folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 0),
        ("model", "other"),
        ("encoder", "audio"),
        ("grid", [4, 8]),
        ("batch", 2),
        ("dtype", "fp16"),
        ("inputs", [["pixels", [1, 24, 768], "bf16"]]),
        ("outputs", [["tokens", [1, 6, 64], "bf16"]]),
        ("weights_sha256", "0" * 64),
        ("wrapper_revision", 0),
        ("trt_version", "1.6.0.0"),
    ],
)
def test_a_plan_of_something_else_is_stale_by_that_field(copy, field, value):
    rewrite(copy[1], lambda fields: fields.update({field: value}))
    assert refusal(copy).code == f"STALE:{field}"


def test_a_plan_of_another_flavour_is_not_mistaken_for_a_stale_one(copy):
    rewrite(copy[1], lambda fields: fields.update(flavour="tensorrt"))
    assert refusal(copy).code == "NO_ENGINE"


@pytest.mark.parametrize(
    ("capability", "name", "code"),
    [("8.6", "any", "STALE:compute_capability"), ("8.9", "NVIDIA L4", "STALE:gpu_name")],
)
def test_a_foreign_plan_is_refused(copy, capability, name, code):
    rewrite(copy[1], lambda fields: fields.update(compute_capability=capability, gpu_name=name))
    assert refusal(copy).code == code


def test_a_portable_plan_needs_compute_capability_8(copy):
    assert refusal(copy, Gpu("7.5", "NVIDIA RTX 2080")).code == "STALE:compute_capability"


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(manifest.Fields)])
def test_a_field_changed_by_hand_breaks_the_key(copy, field):
    path = copy[1] / "manifest.json"
    values = json.loads(path.read_text())
    old = values["fields"][field]
    values["fields"][field] = old + 1 if isinstance(old, int) else (old[:-1] if old else ["x"])
    path.write_text(json.dumps(values))
    assert refusal(copy).code in ("STALE:key", "STALE:schema")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda f: (f / "engine.plan").write_bytes((f / "engine.plan").read_bytes()[:-1]), "STALE:plan_bytes"),
        (lambda f: (f / "engine.plan").write_bytes(b""), "STALE:plan_bytes"),
        (lambda f: (f / "engine.plan").unlink(), "STALE:plan"),
        (lambda f: (f / "manifest.json").unlink(), "STALE:manifest"),
        (lambda f: (f / "manifest.json").write_text("{"), "STALE:manifest"),
        (lambda f: (f / "manifest.json").write_text("[]"), "STALE:manifest"),
        (lambda f: (f / "manifest.json").write_text('{"fields": {}}'), "STALE:manifest"),
        (lambda f: (f / "parity.json").unlink(), "PARITY_FAIL"),
        (lambda f: (f / "parity.json").write_text("null"), "PARITY_FAIL"),
    ],
)
def test_damage_is_named(copy, damage, code):
    damage(copy[1])
    assert refusal(copy).code == code


def test_one_flipped_bit_in_the_plan_is_seen(copy):
    path = copy[1] / "engine.plan"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert refusal(copy).code == "STALE:plan_sha256"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan": [], "not_run": "no GPU"}, "never compared with torch on a GPU .no GPU"),
        ({"plan_sha256": "0" * 64}, "of another plan"),
        ({"gpu_name": "NVIDIA L4"}, "compared on NVIDIA L4, not on NVIDIA RTX 4090"),
        ({"plan": [parity.Measure("noise1", "tokens", 0.02, 0.01, 0.9999, True)]}, "tokens on noise1: error 2.00e-02"),
        ({"plan": [parity.Measure("noise1", "tokens", 0.001, 0.01, 0.99, True)]}, "smallest cosine 0.99"),
        ({"plan": [parity.Measure("noise1", "deepstack", 0.0, 1.0, 1.0, False)]}, "deepstack on noise1: not finite"),
    ],
)
def test_a_plan_not_seen_to_equal_torch_on_this_gpu_is_refused(copy, change, words):
    dataclasses.replace(parity.read_parity(copy[1]), **change).write(copy[1])
    found = refusal(copy)
    assert found.code == "PARITY_FAIL"
    assert re.search(words, found.detail)


def test_a_freshly_built_plan_waits_for_its_gpu(built, copy):
    """What was built without a GPU has no parity record, so it is refused until `salmonn engines verify` ran there."""
    cache, spec, sha256 = built[0], copy[2], copy[3]
    assert cache.find(spec, sha256, ADA).code == "PARITY_FAIL"


def test_nothing_built(copy, tmp_path):
    found = EngineCache(tmp_path / "empty").find(copy[2], copy[3], ADA)
    assert found.code == reasons.NO_ENGINE
    assert "vision4x6" in found.detail


def test_a_good_entry_wins_over_a_newer_bad_one(copy):
    cache, folder, spec, sha256 = copy
    bad = folder.with_name(folder.name[:-1] + "~")
    shutil.copytree(folder, bad)
    rewrite(bad, lambda fields: fields.update(trt_version="9.9"))
    assert cache.find(spec, sha256, ADA).folder == folder


def test_prune_removes_what_cannot_be_used_and_keeps_the_rest(copy):
    cache, folder, _, _ = copy
    bad = folder.with_name(folder.name[:-1] + "~")
    shutil.copytree(folder, bad)
    (bad / "engine.plan").write_bytes(b"short")
    unfinished = folder.parent / ".building-x"
    unfinished.mkdir()
    assert {p for p, _ in cache.prune(dry_run=True)} == {bad, unfinished}
    assert bad.exists()
    assert {why.code for _, why in cache.prune()} == {"STALE:plan_bytes", "STALE:unfinished"}
    assert folder.exists()
    assert not bad.exists()
    assert not unfinished.exists()


def test_an_entry_appears_whole_or_not_at_all(copy):
    """A build that dies leaves the cache as it was; a finished one replaces the entry of its key by a rename."""
    cache, folder, spec, sha256 = copy
    found = manifest.read(folder)

    def dies():
        with cache.lock("small"), cache.workspace("small") as half:
            (half / "engine.plan").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dies()
    assert [e.folder for e in cache.entries()] == [folder]
    with cache.lock("small"), cache.workspace("small") as work:
        for name in ("engine.plan", "parity.json", "build.log"):
            shutil.copy(folder / name, work / name)
        entry = cache.install(work, found)
    assert entry.folder == folder
    assert cache.find(spec, sha256, ADA).folder == folder
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".building")] == []


HOLD = """
import sys
from salmonn_node.engines.cache import EngineCache
with EngineCache(sys.argv[1]).lock("small"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_builders_of_one_model_take_turns(tmp_path):
    """While another process holds the model's lock nobody gets it; when it lets go, the next one does."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (tmp_path / "small" / ".lock").open("w") as stream:
            with pytest.raises(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other.communicate("go\n", timeout=60)
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert other.returncode == 0
