"""The classifier's corpus: readers of labelled data, and a generator of traces with planted values."""
