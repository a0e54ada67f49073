"""Pages and tables that show what trained runs are worth."""
