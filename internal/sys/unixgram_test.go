package sys

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestUnixgram(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, dir string }{
		{"a path that fits an address", "run"},
		{"a path that does not", strings.Repeat("long", 40)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), test.dir)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "m.sock")
			if _, err := DialUnixgram(path); !errors.Is(err, syscall.ENOENT) {
				t.Fatalf("nobody is there: %v", err)
			}
			for range 2 { // the second finds the name of the first
				in, err := ListenUnixgram(path)
				if err != nil {
					t.Fatal(err)
				}
				st, err := os.Lstat(path)
				if err != nil || st.Mode() != os.ModeSocket|0o600 {
					t.Fatalf("mode %v, %v", st.Mode(), err)
				}
				out, err := DialUnixgram(path)
				if err != nil {
					t.Fatal(err)
				}
				if _, errno := SendMsg(out, [][]byte{[]byte("hello")}, nil); errno != 0 {
					t.Fatal(errno)
				}
				b, control := make([]byte, 16), make([]byte, CredentialsSpace)
				n, c, flags, errno := RecvMsg(in, b, control)
				if errno != 0 || flags&(MessageTruncated|ControlTruncated) != 0 || !bytes.Equal(b[:n], []byte("hello")) {
					t.Fatalf("%q, flags %x, %v", b[:n], flags, errno)
				}
				if pid, uid, _, ok := Credentials(control[:c]); !ok || pid != os.Getpid() || uid != os.Getuid() {
					t.Errorf("credentials: pid %d, uid %d, %v", pid, uid, ok)
				}
				CloseRaw(in)
				if _, errno := SendMsg(out, [][]byte{[]byte("hello")}, nil); errno != syscall.ECONNREFUSED {
					t.Errorf("the receiver is gone: %v", errno)
				}
				CloseRaw(out)
			}
		})
	}
}

func TestListenUnixgramKeepsFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnixgram(path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("bind over a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ListenUnixgram(filepath.Join(t.TempDir(), "missing", strings.Repeat("x", 100))); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("bind in no directory: %v", err)
	}
}
