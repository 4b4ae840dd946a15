package wasm

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"baton/internal/sys"
	"baton/runtime"

	"github.com/tetratelabs/wazero"
)

// Native code lies in the cache directory, a file per prepared module, as wazero writes
// it but with room before it, so that the machine code begins at a page:
//
//	0      room: zeros
//	pad    wazero's stream: its header, the offsets of the functions, the
//	       length of the machine code (8 bytes)
//	code   machine code, from a multiple of the page size on
//	       the rest of wazero's stream: a checksum of the machine code, tables
//	end-8  pad, little-endian
//
// A worker maps the machine code instead of reading it: workers share its pages, and
// only what runs is in memory. See RATIONALE.md, "How is native code loaded?".

// codeKey is wazero's name for native code: of the module, the compiler's version and the processor.
type codeKey = [32]byte

// codeStore is what wazero takes for its file cache, an interface that it keeps
// in an internal package: see withStore.
type codeStore interface {
	Get(key codeKey) (content io.ReadCloser, ok bool, err error)
	Add(key codeKey, content io.Reader) error
	Delete(key codeKey) error
}

var (
	_ codeStore = (*codeFiles)(nil)
	_ codeStore = (*codeWriter)(nil)
	_ codeStore = (*keyFinder)(nil)
)

// codeName is the file of native code in the cache directory.
func codeName(key codeKey) string { return hex.EncodeToString(key[:]) + ".code" }

// codeFiles serves what is in the directory, and nothing else: a worker never
// compiles. It knows where native code is mapped, and gives it back when nobody uses it
// any more: wazero leaves that to a finalizer, and keeps pointers to closed modules in
// the spare room of a list, so that it runs late or never.
type codeFiles struct {
	dir string

	mu   sync.Mutex
	uses map[string]*codeUse // by the name of the file
}

// codeUse is one file of native code that is used, or about to be.
type codeUse struct {
	pins int // loads and users; guarded by codeFiles.mu

	// Held while it is loaded or given back, so that nobody gets from wazero's memory
	// what is given back. Taken before codeFiles.mu.
	mu       sync.Mutex
	users    int
	segments [][]byte // where it is mapped
}

// load has compile load the native code in the file called name. What it loads stays until
// as many calls of unload.
func (c *codeFiles) load(name string, compile func() error) error {
	c.mu.Lock()
	u := c.uses[name]
	if u == nil {
		u = new(codeUse)
		c.uses[name] = u
	}
	u.pins++
	c.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	before := len(u.segments)
	if err := compile(); err != nil {
		u.segments = u.segments[:before] // wazero's to unmap
		c.unpin(name, u)
		return err
	}
	u.users++
	return nil
}

// unload gives native code back: the last one its memory. No instance of the caller's
// exists any more. release makes wazero forget the module; until then it holds on to the
// addresses, which must not become somebody else's before.
func (c *codeFiles) unload(name string, release func()) {
	c.mu.Lock()
	u := c.uses[name]
	c.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.users--; u.users == 0 {
		for _, segment := range u.segments {
			_ = sys.Retire(segment) // or it stays until the finalizer
		}
		u.segments = nil
	}
	release()
	c.unpin(name, u)
}

func (c *codeFiles) unpin(name string, u *codeUse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.pins--; u.pins == 0 {
		delete(c.uses, name)
	}
}

// Get opens native code; what is missing is runtime.ErrNotPrepared, not an
// occasion to compile.
func (c *codeFiles) Get(key codeKey) (io.ReadCloser, bool, error) {
	name := codeName(key)
	f, err := os.Open(filepath.Join(c.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("native code: %w", runtime.ErrNotPrepared)
	} else if err != nil {
		return nil, false, err
	}
	r, err := newCodeReader(f)
	if err != nil {
		_ = f.Close()
		return nil, false, fmt.Errorf("native code %s: %w", f.Name(), err)
	}
	c.mu.Lock()
	r.use = c.uses[name]
	c.mu.Unlock()
	return r, true, nil
}

// Add is not called: nothing is compiled.
func (c *codeFiles) Add(codeKey, io.Reader) error {
	return errors.New("a worker does not compile")
}

// Delete is called for code of another version of wazero, which a stamp of this one never names.
func (c *codeFiles) Delete(codeKey) error { return runtime.ErrNotPrepared }

// codeReader reads wazero's stream from a file of native code.
type codeReader struct {
	file *os.File
	buf  *bufio.Reader
	at   int64 // of the next byte in the file
	end  int64 // of the stream
	// mapped is whether the machine code was mapped; see Read.
	mapped bool
	use    *codeUse // who loads, and holds its lock; nil: nobody wants to know
}

// codeMapMin is the least that is worth a mapping, in bytes. wazero reads
// nothing that long but the machine code.
const codeMapMin = sys.PageSize

func newCodeReader(f *os.File) (*codeReader, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var b [8]byte
	end := st.Size() - int64(len(b))
	if end < 0 {
		return nil, io.ErrUnexpectedEOF
	}
	if _, err := f.ReadAt(b[:], end); err != nil {
		return nil, err
	}
	pad := binary.LittleEndian.Uint64(b[:])
	if pad >= sys.PageSize || int64(pad) > end {
		return nil, fmt.Errorf("room of %d bytes before it", pad)
	}
	r := &codeReader{file: f, at: int64(pad), end: end}
	r.buf = bufio.NewReaderSize(io.NewSectionReader(f, r.at, end-r.at), 64<<10)
	return r, nil
}

// Read fills p, as wazero's decoder expects of every read. Machine code, for which
// p is a mapping of its own that wazero has just made, is mapped there from the
// file; where that cannot be (a directory that is mounted noexec), it is read.
//
// Source: wazero v1.12, internal/engine/wazevo/engine_cache.go, deserializeCompiledModule.
func (r *codeReader) Read(p []byte) (int, error) {
	if !r.mapped && len(p) >= codeMapMin && r.at%sys.PageSize == 0 && r.at+int64(len(p)) <= r.end &&
		sys.MmapCodeOver(p, int(r.file.Fd()), r.at) == nil {
		r.mapped = true
		if r.use != nil {
			r.use.segments = append(r.use.segments, p)
		}
		r.at += int64(len(p))
		r.buf.Reset(io.NewSectionReader(r.file, r.at, r.end-r.at))
		return len(p), nil
	}
	n, err := io.ReadFull(r.buf, p)
	r.at += int64(n)
	return n, err
}

// Close closes the file; what is mapped stays.
func (r *codeReader) Close() error { return r.file.Close() }

// codeWriter keeps what wazero compiles in one file.
type codeWriter struct {
	path string
	size int64 // of what was written
}

// Get has everything compiled.
func (w *codeWriter) Get(codeKey) (io.ReadCloser, bool, error) { return nil, false, nil }

// Add writes the file.
func (w *codeWriter) Add(_ codeKey, content io.Reader) error {
	stream, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	pad := 0
	if at, ok := codeOffset(stream); ok {
		pad = (sys.PageSize - at%sys.PageSize) % sys.PageSize
	}
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{make([]byte, pad), stream, binary.LittleEndian.AppendUint64(nil, uint64(pad))} {
		n, e := f.Write(part)
		w.size += int64(n)
		err = errors.Join(err, e)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// Delete is not called: Get finds nothing.
func (w *codeWriter) Delete(codeKey) error { return nil }

// codeOffset finds where the machine code begins in wazero's stream: magic (6
// bytes), version (length in one byte), number of functions (4), offset of
// each (8), length (8). ok is false when it is not that: then the code is read and not mapped.
//
// Source: wazero v1.12, internal/engine/wazevo/engine_cache.go, serializeCompiledModule.
func codeOffset(stream []byte) (at int, ok bool) {
	const magic, word = 6, 8
	if len(stream) <= magic {
		return 0, false
	}
	at = magic + 1 + int(stream[magic])
	if len(stream) < at+4 {
		return 0, false
	}
	functions := int(binary.LittleEndian.Uint32(stream[at:]))
	if at += 4; functions > (len(stream)-at)/word-1 {
		return 0, false
	}
	at += functions * word
	length := binary.LittleEndian.Uint64(stream[at:])
	at += word
	return at, length <= uint64(len(stream)-at)
}

// keyFinder learns the key that wazero asks for, and ends the compilation there.
type keyFinder struct{ key codeKey }

var errKeyFound = errors.New("the key is known")

// Get notes the key.
func (k *keyFinder) Get(key codeKey) (io.ReadCloser, bool, error) {
	k.key = key
	return nil, false, errKeyFound
}

// Add is not called: Get fails.
func (k *keyFinder) Add(codeKey, io.Reader) error { return errKeyFound }

// Delete is not called: Get fails.
func (k *keyFinder) Delete(codeKey) error { return errKeyFound }

// newCache makes wazero's compilation cache over our store.
func newCache(s codeStore) (wazero.CompilationCache, error) {
	cache := wazero.NewCompilationCache()
	if !withStore(cache, s) {
		return nil, errors.New("wazero's compilation cache is not as it was in v1.12: see code_unsafe.go")
	}
	return cache, nil
}
