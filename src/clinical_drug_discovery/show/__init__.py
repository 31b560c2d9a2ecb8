"""Results as a person reads them: tables on the terminal, reports, pictures, pages."""
