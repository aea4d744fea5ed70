"""Replicas on one machine: processes started, watched, restarted, and as many as the load asks for."""
