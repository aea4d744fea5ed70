"""The pretrained prior of the program `bag`: how it is made, and the table that ships. See `docs/bag.md`."""
