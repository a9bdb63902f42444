"""Arrays and numbers in, figures and HTML pages out."""
