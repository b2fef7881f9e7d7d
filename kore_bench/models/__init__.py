"""Model cards, one file each; a card is a module-level ``CARD``."""
