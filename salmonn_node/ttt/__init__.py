"""Fast weights that are trained while the stream flows: the TTT layer and its Hessian-free solver. torch alone."""
