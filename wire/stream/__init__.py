"""The status stream `fund.status.v1`: protocol, fan-out, websocket server, client for programs.

Import from the modules: a program that only decodes messages then loads no websocket library.
"""
