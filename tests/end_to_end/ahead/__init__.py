"""What stands on the path of every process that an end-to-end test starts."""
