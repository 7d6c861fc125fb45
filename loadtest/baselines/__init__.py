"""What people serve such a model with today, written as they write it, to measure ours against; nothing here imports ours."""
