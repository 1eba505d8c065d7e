"""The command line: the only code that prints, parses arguments or writes files. The last of the five tiers."""
