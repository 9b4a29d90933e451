"""What a run shows and leaves for people: terminal, pictures, tables, model card."""
