"""Ingest: observations are admitted, sampled and queued, and one worker adds them to the memory."""
