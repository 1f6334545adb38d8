"""An encoder as a TensorRT plan: spec, export, build, cache, parity, runtime."""
