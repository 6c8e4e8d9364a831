"""WORDS: from catalog rows and histories to strings and token ids."""
