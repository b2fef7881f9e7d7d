"""Injection methods and their ingredients, one file each; each defines module-level `Method` objects."""
