"""What a run leaves for people: report.html, the model card, the picture of its augmentations."""
