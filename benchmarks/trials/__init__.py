"""Other settings of the first stage, tried beside a recipe on validation: `python -m benchmarks.trials`."""
