"""The network: configuration, towers, language model, prompt and positions, checkpoint loading."""
