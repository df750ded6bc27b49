"""The demo in a real browser, used and looked at as people do."""
