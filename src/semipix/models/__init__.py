"""Task models, one file an architecture; the flaw detector; and `adapt`, which makes any module a task model."""
