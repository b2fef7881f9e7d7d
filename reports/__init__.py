"""What a reader sees of a run: one file a table, figure or page, each built from records alone.

A file with a ``REPORT`` is a report; the others hold what reports share: ``summary`` (one row a method), ``wording``
(the reading in words), ``content`` (the parts of a document), ``tabular``, ``drawing`` and ``labels`` (tables and figures).
"""
