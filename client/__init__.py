"""What applications import: a Python client of the HTTP interface and its wire types. Depends on nothing else here."""
