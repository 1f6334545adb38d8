"""Export a static wrapper to an ONNX file whose bytes depend only on the graph and the weights."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import nn

from salmonn_node.engines.spec import EngineSpec

GRAPH = "graph.onnx"
# TensorRT 10.3 (JetPack 6) reads opset 20. Opset 23 has an Attention operator; TensorRT-RTX 1.7 parses it.
OPSET = 20
OPSET_WITH_ATTENTION = 23


def opset_for(flavour: str, version: str) -> int:
    """Return the newest opset that a TensorRT version is known to read."""
    major, minor = (int(n) for n in version.split(".")[:2])
    newest = (major, minor) >= (1, 7) if flavour == "tensorrt_rtx" else major >= 11
    return OPSET_WITH_ATTENTION if newest else OPSET


def export_onnx(static: nn.Module, spec: EngineSpec, folder: Path, opset: int = OPSET) -> Path:
    """Write `graph.onnx` (and its weights, `graph.onnx.data`) into a folder.

    Raises:
        torch.onnx.OnnxExporterError: an operator cannot be exported. None is left out silently.
    """
    inputs = tuple(t.empty(next(static.parameters()).device, fill=0.0) for t in spec.inputs)
    path = folder / GRAPH
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            static.eval(),
            inputs,
            dynamo=True,
            opset_version=opset,
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
            verbose=False,
        )
        assert program is not None, "the dynamo exporter gives a program"
        program.save(str(path), external_data=True)
    _strip(path)
    return path


def _strip(path: Path) -> None:
    """Remove data that differs between machines: source paths, stack traces, the version of the exporter."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    model.producer_version = model.doc_string = ""
    del model.metadata_props[:]
    for graph in (model.graph, *model.functions):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for part in (*graph.node, *graph.value_info):
            part.doc_string = ""
            del part.metadata_props[:]
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    path.write_bytes(model.SerializeToString(deterministic=True))


def graph_sha256(path: Path) -> str:
    """Return the sha256 over an ONNX file and its weights file."""
    digest = hashlib.sha256()
    for file in (path, path.with_name(path.name + ".data")):
        if file.exists():
            with file.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()


def widen(path: Path, out: Path) -> Path:
    """Rewrite a bf16 or fp16 graph in float32, with the same nodes and the same rounded weights.

    ONNX Runtime's CPU provider has few bf16 kernels. The rewritten graph lets us check, without a GPU, the graph that
    TensorRT gets. It does not show the rounding between layers.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, numpy_helper

    narrow = (TensorProto.BFLOAT16, TensorProto.FLOAT16)
    model = onnx.load(str(path))

    def wide(tensor: onnx.TensorProto) -> onnx.TensorProto:
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)

    for tensor in model.graph.initializer:
        if tensor.data_type in narrow:
            tensor.CopyFrom(wide(tensor))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type in narrow:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for body in (model.graph, *model.functions):
        for node in body.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i in narrow:
                    attribute.i = TensorProto.FLOAT
                if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in narrow:
                    attribute.t.CopyFrom(wide(attribute.t))
    onnx.save_model(model, str(out), save_as_external_data=True, location=out.name + ".data")
    return out
