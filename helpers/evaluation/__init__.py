"""Scores: who asks, who answers, who is right, and how sure we are."""
