"""What TRL lacks: advantages of groups of any size."""
