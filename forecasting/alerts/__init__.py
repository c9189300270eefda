"""Alerts: rules on what is forecast and on what came out otherwise, judged as steps close, told once a change.

`rules` says what is watched, `crossing` and `surprises` how likely a thing is, `machine` what follows from that,
`records` keeps it. Reports' targets and leases deliver it. Nothing here runs within a request.
"""
