package worker

import (
	"encoding/json"
	"path/filepath"
	"testing"
)

// What the gateway writes into its first frame reaches the engine.
func TestCodeMemoryReachesTheEngine(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	text, err := json.Marshal(map[string]any{"data": data, "codeMB": 7})
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	if err := json.Unmarshal(text, &cfg); err != nil {
		t.Fatal(err)
	}
	if o := engineOptions(cfg); o.CodeMax != 7<<20 || o.CacheDir != filepath.Join(data, "cache") {
		t.Errorf("%+v", o)
	}
}
