"""The load test's report: what is measured, the targets, the plots and the page. ``make loadtest`` writes it here."""
