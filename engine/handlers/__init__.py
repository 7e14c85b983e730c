"""The actions: each performs one kind of request on one outside system, and answers with data.

`registry` is where actions are declared, the project's own and a user's alike. The modules here are those
of `machines/`: `flow_steps`, `templates`, `ledger`, `chart_img`, `publish`.
"""
