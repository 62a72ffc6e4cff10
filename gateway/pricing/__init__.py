"""What tokens cost: prices by model, and the cost of what a call used."""
