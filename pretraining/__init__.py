"""Creates the starter backbone by distilling a pre-trained teacher, without labels."""
