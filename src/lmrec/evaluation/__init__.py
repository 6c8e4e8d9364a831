"""JUDGING: the whole catalog is ranked, ties count against us, and every difference has an interval."""
