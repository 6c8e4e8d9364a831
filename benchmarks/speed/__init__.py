"""Speed, measured side by side with a reference in one run: one module a figure, `main(small) -> list[Figure]`."""
