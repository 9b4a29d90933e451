"""How the bundled starter backbone is made: distilled from a pre-trained teacher, with no labels."""
