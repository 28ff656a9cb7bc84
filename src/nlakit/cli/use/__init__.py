"""Commands that use a finished pair."""
