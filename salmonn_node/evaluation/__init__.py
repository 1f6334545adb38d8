"""Evaluation: question files, scores, arms of a comparison, importers and the report."""
