"""Training: recipes, the step, the loop, checkpoints."""
