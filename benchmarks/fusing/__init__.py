"""Ways to find the weights of a fusion, compared on validation cases that had no say in them."""
