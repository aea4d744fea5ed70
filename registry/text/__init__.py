"""What of a ticket's text a model reads: markup, quotes and personal data taken out."""
