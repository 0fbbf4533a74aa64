"""Index and ranking: who is nearest to whom."""
