"""The bare floors: HTTP or gRPC face, one hop (plain gRPC, or a tunnel), HTTP call to a provider, and no logic at all.

It speaks the mesh's contracts with nothing of the mesh behind them: no keys, choice, cache, ledger, journal, metrics,
limits or errors. What a request costs here, no mesh of this shape on this stack can go below with that hop;
only its ratio to the mesh, measured in the same minute, means anything on a shared machine.
"""
