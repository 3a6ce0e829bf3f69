"""The scaler's ways out: it watches replicas by gRPC, and serves Kubernetes' external metrics by HTTPS."""
