"""What the campaign of faults is made of: search spaces that fail on demand, a tormentor of searches, and checks."""
