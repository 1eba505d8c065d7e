"""Where the repository is."""

HOME = 'https://github.com/ORG/timm_3g'  # ORG stands for the account that hosts it
