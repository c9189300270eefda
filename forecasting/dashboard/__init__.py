"""The dashboard: pages (`templates/`), our own modules and styles (`static/`), and how they are served.

A page is an empty shell that anyone may load; all that it shows comes from the REST API, with the key of who looks at
it. BokehJS is served from the installed package. Nothing is built, and nothing is asked from another host.
"""
