"""Image files: read out of data URLs or fetched, and found to be what they say, before anybody keeps them."""
