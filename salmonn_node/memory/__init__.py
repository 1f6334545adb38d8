"""Memory of a stream: token memories of fixed size with their discard rules, and the evidence index."""
