"""Google Gemini and its Interactions."""
