"""Settings as frozen data, where they come from, and the one place where components are wired from them."""
