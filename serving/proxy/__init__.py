"""Envoy before replicas: its configuration, its process, and the ring by which it chooses."""
