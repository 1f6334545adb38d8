"""TTT layer: fast weights that train while the stream runs, with SGD and Hessian-free updates. Needs torch only."""
