"""TENSORS ONLY: encoders, user models, heads, and collaborative scorers; knows neither tables nor templates."""
