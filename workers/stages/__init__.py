"""How requests become batches, run through the stages of a method, and become replies."""
