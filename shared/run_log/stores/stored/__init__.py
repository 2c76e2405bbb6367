"""The stored form of a run."""
