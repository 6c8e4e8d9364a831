"""LEARNING: objectives, batches and the loop."""
