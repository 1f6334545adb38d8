"""The way in: observations are admitted, sampled, queued and taken into the memory by one worker."""
