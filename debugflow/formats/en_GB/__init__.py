"""English as the site writes it: 24 hours, with the seconds that an incident goes by."""
