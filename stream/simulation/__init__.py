"""A seeded social network: when things happen (`times`) and who does what to whom (`actors`).

The source that hands these events to ingest is `stream.sources.simulate`.
"""
