"""EVIDENCE: what users did, what they were shown, and what people decided; kept by SQLite or PostgreSQL. No torch."""
