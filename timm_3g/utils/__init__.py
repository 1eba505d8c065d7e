"""Files written whole or not at all, locks, downloads, text on a terminal, torchrun. Imports no other room of this package."""
