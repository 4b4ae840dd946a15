package runtime

// The kinds of executor: Function.Kind.
const (
	KindWasm   = "wasm"   // WASI modules, in the worker's own process
	KindNative = "native" // machine code, in processes of its own
	KindPHP    = "php"
	KindPython = "python"
)

// KindOf says which executor runs what a descriptor calls runtime, for its
// target (empty: the runtime's own). The empty kind: no executor does.
func KindOf(language, target string) string {
	switch language {
	case "wasm", "go", "rust", "tinygo":
		return KindWasm
	case "c", "cpp", "c++":
		if target == "wasm" {
			return KindWasm
		}
		return KindNative
	case "native":
		return KindNative
	case "php":
		return KindPHP
	case "python":
		return KindPython
	}
	return ""
}
