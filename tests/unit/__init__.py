"""No database, or none but the bed itself; milliseconds each."""
