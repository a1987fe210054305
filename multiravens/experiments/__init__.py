"""Many runs: tables of them, and their reports."""
