"""ANSWERING: from a trained run to recommendations."""
