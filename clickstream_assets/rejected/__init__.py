"""Records that the ingest refused: what they are, and how they come in after all."""
