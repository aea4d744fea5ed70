"""A discrete simulation of many replicas behind a ring: which requests are cold, how long they wait, what a loss costs."""
