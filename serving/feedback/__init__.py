"""Feedback on its way from a request to the journal on disk and from there to the store."""
