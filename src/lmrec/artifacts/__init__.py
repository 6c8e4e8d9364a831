"""THINGS ON DISK, self-describing: safetensors and json, never pickle."""
