"""Lab: the synthetic world, the training recipe and the benchmarks. A robot does not need it."""
