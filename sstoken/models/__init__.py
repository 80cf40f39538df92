"""Weights: where they come from, how they are loaded, how large they are, what a pass through them costs."""
