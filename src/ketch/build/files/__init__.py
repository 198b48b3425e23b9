"""Files of a build: which are meant, what they are worth to the cache, how they get into a root."""
