"""timm's own train.py with these models: its scripts, its arguments checked, and the curves of runs."""
