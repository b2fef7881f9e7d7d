"""Tasks: one file each, which defines ``TASK``; the file's name, underscores as hyphens, is the task's name."""
