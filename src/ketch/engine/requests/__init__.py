"""How a command asks for a start and hears what came of it; ``ketch run`` loads this room alone."""
