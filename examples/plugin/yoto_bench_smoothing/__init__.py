"""A task and a method for yoto-bench."""
