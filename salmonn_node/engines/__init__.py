"""TensorRT plans of the encoders: specification, export, build, cache, parity check, runtime."""
