"""Images: the catalogue, fetching, building, and the cache they all fill."""
