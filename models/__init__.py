"""The classifier: its data, training, export and published bundles. Nothing here is imported by the proxy."""
