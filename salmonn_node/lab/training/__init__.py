"""The recipe of the tiny checkpoint."""
