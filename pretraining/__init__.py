"""How a starter backbone is made: distilled from a pre-trained teacher, with no labels."""
