"""What happened, kept and provable. Knows nothing of who may ask or how access is opened."""
