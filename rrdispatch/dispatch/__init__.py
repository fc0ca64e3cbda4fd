"""The dispatcher: its handle for the primary, and its twin in Python for where there is no C."""
