"""From measurements to settings: every "auto" of a recipe resolved, each with its reason, and what it will cost."""
