"""Reports of a run: report.html, the model card, and a contact sheet of the augmented views."""
