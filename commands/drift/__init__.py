"""`supportbot drift`: what drift detection says of logs and of servers, and the baselines it compares with."""
