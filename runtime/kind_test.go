package runtime_test

import (
	"testing"

	"baton/runtime"
)

func TestKindOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ language, target, want string }{
		{"wasm", "", "wasm"}, {"go", "", "wasm"}, {"rust", "wasm", "wasm"}, {"tinygo", "", "wasm"},
		{"c", "", "native"}, {"cpp", "native", "native"}, {"c++", "", "native"}, {"native", "", "native"},
		{"c", "wasm", "wasm"}, {"cpp", "wasm", "wasm"}, {"c++", "wasm", "wasm"},
		{"php", "", "php"}, {"python", "", "python"}, {"cobol", "", ""}, {"", "wasm", ""},
	} {
		if got := runtime.KindOf(c.language, c.target); got != c.want {
			t.Errorf("KindOf(%q, %q) = %q, want %q", c.language, c.target, got, c.want)
		}
	}
}
