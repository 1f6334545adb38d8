"""The workshop, which no robot needs: the synthetic world, the training recipe and the benchmarks."""
