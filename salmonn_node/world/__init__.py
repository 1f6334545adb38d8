"""A synthetic robot world with known answers: frames, sounds, trajectory, questions."""
