"""`thaw predict`: from image files to a table, through the fastest engine that agrees, resumable and sharded."""
