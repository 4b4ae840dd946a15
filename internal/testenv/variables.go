package testenv

// Variables are the variables of an invocation, each "NAME=value". They
// implement runtime.Environ.
type Variables []string

func (v Variables) Sizes() (count, bytes int) {
	for _, s := range v {
		bytes += len(s) + 1
	}
	return len(v), bytes
}

func (v Variables) AppendTo(dst []byte) []byte {
	for _, s := range v {
		dst = append(append(dst, s...), 0)
	}
	return dst
}

func (v Variables) Starts() (starts []uint32) {
	at := 0
	for _, kv := range v {
		starts = append(starts, uint32(at))
		at += len(kv) + 1
	}
	return starts
}
