"""How providers are reached: one file for each whose wire differs. An adapter never imports another."""
