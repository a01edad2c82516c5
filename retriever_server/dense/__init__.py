"""Dense vectors: how they are stored, and exact ranks over them."""
