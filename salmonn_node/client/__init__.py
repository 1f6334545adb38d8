"""What a planner imports: a client of the node's query service, action and watch."""
