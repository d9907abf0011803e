"""What the tests on a kernel share."""
