"""Fast weights, their solver, the fixed token memory, the reader, evidence and state on disk."""
