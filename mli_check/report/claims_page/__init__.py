"""The page docs/claims.md: every claim with its criterion and the verdicts of the results kept in docs/results."""
