"""Training recipe of the tiny checkpoint."""
