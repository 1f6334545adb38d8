"""Question files, scores, arms, importers and the report."""
