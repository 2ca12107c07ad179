"""What is checked about a recipe before it runs: who plays, what fits together, what is suspicious."""
