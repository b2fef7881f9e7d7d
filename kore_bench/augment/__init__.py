"""KORE-Augmentation as a tool of its own: from raw items to checked knowledge trees."""
