"""scripts/test: which tests run where, several kernels at once, and the verdict."""
