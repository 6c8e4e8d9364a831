"""THE ARC, straight-line code, one file a verb."""
