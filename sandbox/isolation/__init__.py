"""How a program is held: protection levels and what each is made of."""
