"""The derivative dataset: its files, and the rule that decides whether an image is finished."""
