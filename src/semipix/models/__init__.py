"""Task models, one file per architecture, the flaw detector, and `adapt`, which makes a task model of any module."""
