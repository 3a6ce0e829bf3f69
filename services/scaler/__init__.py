"""The scaler: turns health and load of replicas into the metrics that an autoscaler reads. It changes nothing."""
