"""The verbs of the command line, one file each: what they parse, and what they print of what a function returns."""
