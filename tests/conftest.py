"""Settings for all tests. Kept tiny: what a test needs stands in the test, or in `tests/support`."""
