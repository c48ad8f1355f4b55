"""From a model's facts and the hardware to engine arguments, each with its reason, and to a started server."""
