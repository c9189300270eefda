"""httpx without TLS: each client and each single call would load the certificates anew, which takes 50 ms of a core.

Where a test asks again and again until something is so, that is taken from what it waits for.
"""

from functools import partial

import httpx

Client = partial(httpx.Client, verify=False)
get = partial(httpx.get, verify=False)
post = partial(httpx.post, verify=False)
request = partial(httpx.request, verify=False)
