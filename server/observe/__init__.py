"""What the service is seen by: metrics, confidence, lengths, the prediction log, logs. It is told; it never asks the service."""
