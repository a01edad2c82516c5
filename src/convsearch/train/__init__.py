"""Training with verl's own trainers, started as child processes: SFT, then GRPO."""
