"""What comes from and goes to the Hugging Face hub: pinned downloads, model cards, uploads."""
