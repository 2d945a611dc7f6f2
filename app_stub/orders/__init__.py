"""Takes orders and charges for each of them once."""
