"""From scores to suggestions: what may be shown, to whom, and the answers that are remembered."""
