"""What measures speed or wears the product out, and is no test."""
