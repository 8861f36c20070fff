"""What attacks mean for people: pooled images, singled out, most exposed, and by group."""
