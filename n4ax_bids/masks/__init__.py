"""The region where a field is estimated: mask and weight, and programs that find a brain."""
