"""What the names of other packages mean here."""
