"""Searches under limits of the number of parameters, compared with networks without a search of the same size."""
