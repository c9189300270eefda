"""Where the service keeps its books: a SQLite file of one host, or a PostgreSQL database of many."""
