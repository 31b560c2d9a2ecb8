"""Reports about the drugs for a disease and about an evaluation: pages and spreadsheets."""
