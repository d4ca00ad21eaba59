"""Compare embeddings."""
