"""Models as runner processes, and the starter model that comes with the product."""
