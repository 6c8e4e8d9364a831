"""The words of the API: `words` (bounded texts and numbers), `questions` (what comes in), `answers` (what goes out)."""
