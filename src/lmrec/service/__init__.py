"""ONLINE: a trained run behind HTTP. Reads generations and the event store only; knows neither recipes nor training."""
