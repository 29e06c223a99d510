"""Several processes as one run: how they are started, find each other, count together, and end together."""
