package sys

// guardHandler returns the address of the handler of guarded memory, zero where there is none.
func guardHandler() uintptr { return 0 }
