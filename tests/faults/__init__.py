"""Programs that break things on purpose; the ordinary tests run a little of each."""
