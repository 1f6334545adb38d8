"""The way out: question, reader, generation, typed answer with evidence, confidence, abstention."""
