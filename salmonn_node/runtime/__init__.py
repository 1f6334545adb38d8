"""Runtime: settings, and the one place that builds model, observer, answerer and store, live and offline."""
