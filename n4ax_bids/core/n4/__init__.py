"""N4 (Tustison et al. 2010) with the numbers of ITK's implementation."""
