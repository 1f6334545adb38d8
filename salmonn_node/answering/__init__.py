"""Answering: questions become typed answers with evidence, a confidence, or NOT_OBSERVED."""
