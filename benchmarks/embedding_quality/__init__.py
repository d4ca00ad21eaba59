"""Comparison of embeddings."""
