"""Work that is dealt to workers that come and go, each a process with an engine of its own."""
