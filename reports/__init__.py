"""What a reader sees of a run: one file a table, figure or page, each built from records alone.

A file with a ``REPORT`` is a report; the others hold what reports share: ``answers`` (predictions, read once),
``summary`` (one row a method), ``wording`` (the reading in words), ``content`` (the parts of a document), ``browser`` and
``browser_images`` (the page's questions), ``tabular``, ``drawing`` and ``labels`` (tables and figures).
"""
