"""Texts that are not as expected, and what is said of them."""

from __future__ import annotations

T1W = "sub-01/anat/sub-01_T1w.nii.gz"
MARK = b"\xef\xbb\xbf"
NO_MARK = "it begins with a byte order mark; save as UTF-8 without it"
NOT_UTF_8 = "byte 0xe9 in line 1 is not UTF-8; save it as UTF-8"
