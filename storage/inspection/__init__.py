"""Looking at what is stored, for the people who run it: figures of an index, and what is wrong with what is kept."""
