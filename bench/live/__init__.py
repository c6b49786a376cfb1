"""Trained networks at work: on a page of their own, in Python, and in files to take away."""
