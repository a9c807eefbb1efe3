"""What happened: hash-chained records of every decision, written before the decision takes effect."""
