"""Facts: who did what to which item, and when; the items' words; the splits. Never imports torch."""
