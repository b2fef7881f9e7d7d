"""One plug-in of each kind for kore-bench."""
