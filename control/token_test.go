package control

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCreateToken(t *testing.T) {
	t.Parallel()
	data := privateDir(t)
	if _, err := LoadToken(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadToken of nothing = %v, want fs.ErrNotExist", err)
	}
	if created, err := CreateToken(data); err != nil || !created {
		t.Fatalf("CreateToken = %v, %v", created, err)
	}
	token, err := LoadToken(data)
	if err != nil || len(token) != 2*tokenBytes {
		t.Fatalf("LoadToken = %q, %v; want 64 hexadecimal digits", token, err)
	}
	if info, err := os.Lstat(filepath.Join(data, TokenName)); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if created, err := CreateToken(data); err != nil || created {
		t.Errorf("a second CreateToken = %v, %v; want the first one kept", created, err)
	}
	if again, err := LoadToken(data); again != token {
		t.Errorf("the token changed, %v", err)
	}
	if entries, _ := os.ReadDir(data); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	other := privateDir(t)
	if _, err := CreateToken(other); err != nil {
		t.Fatal(err)
	}
	if same, _ := LoadToken(other); same == token {
		t.Error("two data directories got one token")
	}
}

func TestCreateTokenAtOnce(t *testing.T) {
	t.Parallel()
	data := privateDir(t)
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			created, err := CreateToken(data)
			if err != nil {
				t.Error(err)
			}
			if created {
				made.Add(1)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("%d made the token, want one", made.Load())
	}
	if _, err := LoadToken(data); err != nil {
		t.Error(err)
	}
}

func TestLoadTokenLaw(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("x", tokenLengthMin)
	for _, law := range []struct {
		name, text string
		mode       os.FileMode
		ok         bool
	}{
		{"one line", good + "\n", 0o600, true},
		{"without a line end", good, 0o600, true},
		{"read-only", good, 0o400, true},
		{"the longest", strings.Repeat("x", tokenLengthMax) + "\n", 0o600, true},
		{"readable for the group", good, 0o640, false},
		{"readable for all", good, 0o604, false},
		{"writable for all", good, 0o602, false},
		{"empty", "", 0o600, false},
		{"too short", good[1:], 0o600, false},
		{"too long", strings.Repeat("x", tokenLengthMax+1), 0o600, false},
		{"two lines", good + "\n" + good + "\n", 0o600, false},
		{"an empty second line", good + "\n\n", 0o600, false},
		{"a blank in it", good + " x", 0o600, false},
		{"carriage return", good + "\r\n", 0o600, false},
		{"not ASCII", good + "ü", 0o600, false},
	} {
		data := privateDir(t)
		path := filepath.Join(data, TokenName)
		if err := os.WriteFile(path, []byte(law.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, law.mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadToken(data)
		if (err == nil) != law.ok {
			t.Errorf("%s: %v, want accepted %v", law.name, err, law.ok)
		}
		if _, createErr := CreateToken(data); (createErr == nil) != law.ok {
			t.Errorf("%s: CreateToken = %v: a token that is no good must not pass for one", law.name, createErr)
		}
		if err != nil && strings.Contains(err.Error(), good) {
			t.Errorf("%s: the error shows the token: %v", law.name, err)
		}
	}

	data := privateDir(t)
	target := filepath.Join(privateDir(t), "t")
	if err := os.WriteFile(target, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(data, TokenName)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadToken(data); err == nil {
		t.Error("a symbolic link was followed")
	}
	data = privateDir(t)
	if err := os.Mkdir(filepath.Join(data, TokenName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadToken(data); err == nil {
		t.Error("a directory passed for a token")
	}
}
