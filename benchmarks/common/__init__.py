"""What the comparison of agents is made of: records of searches that can be gone on with, statistics, regret curves."""
