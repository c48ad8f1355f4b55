"""Workers, the pool that keeps them busy, the compile box and the verdict cache."""
