"""Remote guard models: language models that judge text, asked for hazards over the network."""
