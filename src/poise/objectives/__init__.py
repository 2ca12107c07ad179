"""The adversarial costs: what each player pays for what D says. One file per family."""
