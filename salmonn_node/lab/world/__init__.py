"""Synthetic robot world: a flat with known events, its pictures and sounds, and questions with known answers."""
