"""Numbers: quality against the field (movielens) and speed (speed)."""
