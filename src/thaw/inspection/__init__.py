"""What is in the data before anything is trained: duplicates, label errors, outliers, shift, and a page of it all."""
