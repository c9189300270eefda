"""A store on any SQL database: tables, queries and the writer in parts. What differs stands behind `Database`."""
