"""Phrases the generator composes tickets from, in the language that `training.synthetic.grammar` describes."""
