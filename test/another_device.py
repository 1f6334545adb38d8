"""A device that is not the CPU, for machines without a GPU: its tensors say "cuda", and their values lie on the CPU.

It holds what a CUDA device holds: a tensor there and one on the CPU never meet in an operation (a CPU tensor without
dimensions, or as an index, may), numpy cannot read it, and the statistics of a layer norm over bf16 are float32 there.
It is no GPU: the kernels, and so the last digits and the speed, are those of the CPU.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
# Operations between devices: they copy.
COPIES = {aten.copy_.default, aten._to_copy.default}
# A CPU tensor may be an index into a CUDA tensor.
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
NORM, NORM_BACKWARD = {aten.native_layer_norm.default}, {aten.native_layer_norm_backward.default}


class Elsewhere(torch.Tensor):
    """A tensor on the other device. `values` holds its numbers, on the CPU."""

    values: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=CUDA,
            requires_grad=False,  # a build without CUDA has no gradients there
        )
        made.values = values
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.values!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Elsewhere:
        return Elsewhere(self.values.detach().clone())

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Mode(TorchDispatchMode):
    """Sees the operations without a tensor of the other device: those that make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Numbered(TorchFunctionMode):
    """Turns "cuda" into "cuda:0": a build of torch without CUDA cannot ask which device is the current one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_numbered, (args, kwargs or {}))
        if func in (torch.tensor, torch.as_tensor):  # they make the tensor where no mode sees it
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].values.tolist()
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    if isinstance(value, torch.device | str) and str(value) == "cuda":
        return CUDA
    return value


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one operation where its tensors lie.

    Raises:
        RuntimeError: they lie on two devices.
    """
    flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = any(isinstance(x, Elsewhere) for x in flat)
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        wanted = torch.device(wanted).type
    elif func in COPIES:
        wanted = "cuda" if isinstance(args[0], Elsewhere) else "cpu"
    else:
        wanted = "cuda" if there else "cpu"
    if there and func not in COPIES:
        held = [args[0]] if func in INDEXING else flat
        strays = [x for x in held if not isinstance(x, Elsewhere) and x.dim()]
        if strays:
            shapes = ", ".join(str(tuple(x.shape)) for x in strays)
            raise RuntimeError(
                f"{func}: expected all tensors to be on the same device, found cuda:0 and, on the CPU, {shapes}"
            )
    if func is aten._fused_sdp_choice.default:
        return 0  # the plain one: the others have a kernel for each device
    values, named = tree_map(lambda x: x.values if isinstance(x, Elsewhere) else x, (args, kwargs))
    if there and func in NORM_BACKWARD:  # the statistics are float32 there; the CPU wants them as it makes them
        values = [x.to(values[1].dtype) if i in (3, 4) else x for i, x in enumerate(values)]
    out = func(*values, **named)
    if wanted != "cuda":
        return out
    if func in NORM and out[0].dtype == torch.bfloat16:
        out = (out[0], out[1].float(), out[2].float())
    known = {id(x.values): x for x in flat if isinstance(x, Elsewhere)}

    def placed(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x)

    return tree_map(placed, out)


@functools.cache
def register_guard() -> None:
    """Compile `no_op_guard.cpp` and load it, where torch has no guard of its own."""
    if torch.version.cuda is not None:
        torch._C._ensureCUDADeviceGuardSet()
        return
    home = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/guard.so"
        source = str(Path(__file__).with_name("no_op_guard.cpp"))
        command = ["g++", "-shared", "-fPIC", "-std=c++20", f"-I{home}/include", source, "-o", library]
        subprocess.run([*command, f"-L{home}/lib", "-lc10"], check=True, timeout=120)
        ctypes.CDLL(library)


@contextmanager
def another_device() -> Iterator[None]:
    """Let "cuda" be the device above, in this thread and in those that start meanwhile."""
    register_guard()
    plain = threading.Thread.run

    def run_thread(thread: threading.Thread) -> None:
        with torch.no_grad(), Numbered(), Mode():
            plain(thread)

    with (
        mock.patch("threading.Thread.run", run_thread),
        # Module.to() replaces parameters, instead of changing what they hold: they change their class.
        mock.patch("torch.__future__._overwrite_module_params_on_conversion", True),
        mock.patch("torch.cuda._lazy_init", return_value=None),
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.current_device", return_value=0),
        mock.patch("torch.cuda.synchronize", return_value=None),
        torch.no_grad(),
        Numbered(),
        Mode(),
    ):
        yield
