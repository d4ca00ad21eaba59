"""Validity of the reward: rank correlation of short trainings with the final training."""
