package build

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits bound what Extract takes. A zero field means the one of
// DefaultLimits. Beyond a bound the source is refused, nothing is cut.
type Limits struct {
	InputBytes int64 // of the upload itself
	Bytes      int64 // of all files, unpacked
	FileBytes  int64 // of one of them
	Entries    int   // files and folders
	Ratio      int   // unpacked bytes per packed byte, above ratioFree
	NameBytes  int   // of one path
	Depth      int   // folders above a file
}

// DefaultLimits are far above any function and far below what fills a disk.
func DefaultLimits() Limits {
	return Limits{InputBytes: 128 << 20, Bytes: 256 << 20, FileBytes: 128 << 20, Entries: 10_000, Ratio: 200, NameBytes: 512, Depth: 32}
}

func (l *Limits) setDefaults() {
	d := DefaultLimits()
	if l.InputBytes <= 0 {
		l.InputBytes = d.InputBytes
	}
	if l.Bytes <= 0 {
		l.Bytes = d.Bytes
	}
	if l.FileBytes <= 0 {
		l.FileBytes = d.FileBytes
	}
	if l.Entries <= 0 {
		l.Entries = d.Entries
	}
	if l.Ratio <= 0 {
		l.Ratio = d.Ratio
	}
	if l.NameBytes <= 0 {
		l.NameBytes = d.NameBytes
	}
	if l.Depth <= 0 {
		l.Depth = d.Depth
	}
}

const (
	// ratioFree is what may be unpacked whatever the ratio: a file of 1 MiB of
	// zeros packs a thousandfold and harms nobody.
	ratioFree = 1 << 20

	nameElementMax = 255 // bytes of one element of a path: NAME_MAX of Linux

	magicBytesMax = 4
)

// Archive kinds, by name or by first bytes.
type archive int

const (
	single archive = iota // one file
	zipped
	tarred
	tarGzipped
)

// Extract writes what r holds to the empty folder dst. name is the uploaded
// file's: .zip, .tar, .tar.gz and .tgz are archives of a folder, anything else
// is one file, unless its first bytes and a name that says nothing tell otherwise.
//
// Files get mode 0600, or 0700 where the archive says that they can be
// executed; folders 0700. An archive whose entries all lie in one folder is
// that folder's content. Names must be relative, UTF-8, without "..", control
// characters or backslashes, and may come once; links, devices and all that is
// neither file nor folder are refused.
//
// The name and the bytes may be hostile. An *Error with reason BadSource says
// what is wrong with them (and wraps ErrTooLarge where a bound was reached);
// any other error is r's or the file system's. After an error dst holds an
// unspecified part: remove it.
func Extract(dst, name string, r io.Reader, limits Limits) error {
	limits.setDefaults()
	x := &extraction{dst: dst, limits: limits, kinds: map[string]fs.FileMode{".": fs.ModeDir}}
	in := &countReader{r: r, max: limits.InputBytes}
	buf := bufio.NewReaderSize(in, 64<<10)
	magic, err := buf.Peek(magicBytesMax)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read upload: %w", err)
	}
	x.packed = in
	switch archiveOf(name, magic) {
	case zipped:
		err = x.zip(buf)
	case tarred:
		err = x.tar(buf)
	case tarGzipped:
		err = x.tarGzip(buf)
	default:
		return x.single(name, buf)
	}
	if err != nil {
		return err
	}
	if x.files == 0 {
		return bad("the archive has no files")
	}
	return hoist(dst)
}

// archiveOf tells what an upload is.
func archiveOf(name string, magic []byte) archive {
	lower := strings.ToLower(name)
	switch {
	case strings.HasSuffix(lower, ".zip"):
		return zipped
	case strings.HasSuffix(lower, ".tar.gz"), strings.HasSuffix(lower, ".tgz"):
		return tarGzipped
	case strings.HasSuffix(lower, ".tar"):
		return tarred
	case path.Ext(lower) != "" || len(magic) < magicBytesMax:
		return single
	case string(magic) == "PK\x03\x04":
		return zipped
	case magic[0] == 0x1f && magic[1] == 0x8b:
		return tarGzipped
	}
	return single
}

// extraction is one call of Extract.
type extraction struct {
	dst    string
	limits Limits
	packed *countReader // what has been read of the upload
	kinds  map[string]fs.FileMode
	files  int
	bytes  int64
}

func bad(format string, args ...any) error {
	return &Error{Reason: BadSource, Detail: fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) error {
	return &Error{Reason: BadSource, Detail: fmt.Sprintf(format, args...), Err: ErrTooLarge}
}

// single writes one file under the last element of its name.
func (x *extraction) single(name string, r io.Reader) error {
	base := path.Base(strings.ReplaceAll(name, "\\", "/"))
	clean, err := x.name(base)
	if err != nil || clean == "." {
		return bad("the file name %s is not one", quoted(base))
	}
	if err := x.file(clean, 0, r); err != nil {
		return err
	}
	if x.bytes == 0 {
		return bad("the file %s is empty", quoted(base))
	}
	return nil
}

// name checks the path of an entry and returns it clean, "." for the folder
// itself.
func (x *extraction) name(name string) (string, error) {
	if len(name) > x.limits.NameBytes {
		return "", tooLarge("a name of %d bytes, at most %d are allowed: %s…", len(name), x.limits.NameBytes, quoted(name[:32]))
	}
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, "\\") {
		return "", bad("the name %s is not allowed: want UTF-8 without control characters and backslashes", quoted(name))
	}
	if strings.HasPrefix(name, "/") {
		return "", bad("the name %s is absolute", quoted(name))
	}
	var elements []string
	for element := range strings.SplitSeq(name, "/") {
		switch {
		case element == "" || element == ".":
			continue
		case element == "..":
			return "", bad("the name %s leads out of the folder", quoted(name))
		case len(element) > nameElementMax:
			return "", tooLarge("a file name of %d bytes, at most %d are allowed: %s…", len(element), nameElementMax, quoted(element[:32]))
		}
		elements = append(elements, element)
	}
	if len(elements) > x.limits.Depth {
		return "", tooLarge("the name %s is %d folders deep, at most %d are allowed", quoted(name), len(elements), x.limits.Depth)
	}
	if len(elements) == 0 {
		return ".", nil
	}
	return strings.Join(elements, "/"), nil
}

// entry takes one entry of an archive. r is read for files only.
func (x *extraction) entry(name string, mode fs.FileMode, r io.Reader) error {
	clean, err := x.name(name)
	if err != nil {
		return err
	}
	switch {
	case mode.IsDir():
		return x.folder(clean)
	case !mode.IsRegular():
		return bad("%s is %s; only files and folders are allowed", quoted(name), kindOf(mode))
	case clean == "." || strings.HasSuffix(name, "/"):
		return bad("the file %s has a folder's name", quoted(name))
	case ignored(clean):
		_, err := io.Copy(io.Discard, r)
		return err
	}
	return x.file(clean, mode, r)
}

// ignored tells what desktop systems add to archives behind their user's back.
func ignored(name string) bool {
	return strings.HasPrefix(name, "__MACOSX/") || path.Base(name) == ".DS_Store"
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "a link"
	case mode&fs.ModeDevice != 0:
		return "a device"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "no file"
}

// folder makes a folder and those above it, once each.
func (x *extraction) folder(name string) error {
	if kind, ok := x.kinds[name]; ok {
		if !kind.IsDir() {
			return bad("%s is a file and a folder", quoted(name))
		}
		return nil
	}
	if ignored(name + "/") {
		return nil
	}
	if err := x.folder(path.Dir(name)); err != nil {
		return err
	}
	if err := x.count(); err != nil {
		return err
	}
	x.kinds[name] = fs.ModeDir
	return os.Mkdir(filepath.Join(x.dst, filepath.FromSlash(name)), 0o700)
}

func (x *extraction) count() error {
	if len(x.kinds) > x.limits.Entries {
		return tooLarge("more than %d files and folders", x.limits.Entries)
	}
	return nil
}

// file writes one file. Nothing of dst is a link and no name comes twice, so
// the path is what it says.
func (x *extraction) file(name string, mode fs.FileMode, r io.Reader) (err error) {
	if _, ok := x.kinds[name]; ok {
		return bad("the name %s comes twice", quoted(name))
	}
	if err := x.folder(path.Dir(name)); err != nil {
		return err
	}
	if err := x.count(); err != nil {
		return err
	}
	x.kinds[name] = 0
	x.files++
	perm := fs.FileMode(0o600)
	if mode&0o111 != 0 {
		perm = 0o700
	}
	out, err := os.OpenFile(filepath.Join(x.dst, filepath.FromSlash(name)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", quoted(name), err)
	}
	defer func() {
		if e := out.Close(); err == nil && e != nil {
			err = fmt.Errorf("write %s: %w", quoted(name), e)
		}
	}()
	return x.copy(out, name, r)
}

// copy copies r to out in pieces, each within the bounds.
func (x *extraction) copy(out io.Writer, name string, r io.Reader) error {
	var size int64
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		size += int64(n)
		x.bytes += int64(n)
		switch {
		case size > x.limits.FileBytes:
			return tooLarge("the file %s has more than %d bytes", quoted(name), x.limits.FileBytes)
		case x.bytes > x.limits.Bytes:
			return tooLarge("the files have more than %d bytes together", x.limits.Bytes)
		case x.bytes > ratioFree && x.bytes > x.packed.n*int64(x.limits.Ratio):
			return tooLarge("it unpacks to more than %d times its size", x.limits.Ratio)
		}
		if _, werr := out.Write(buf[:n]); werr != nil {
			return fmt.Errorf("write %s: %w", quoted(name), werr)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return x.readError(err)
		}
	}
}

// readError tells a fault of the archive from one of the upload's connection.
func (x *extraction) readError(err error) error {
	var mine *Error
	switch {
	case errors.As(err, &mine):
		return mine
	case x.packed.err != nil:
		return fmt.Errorf("read upload: %w", x.packed.err)
	}
	return bad("the archive is damaged: %v", err)
}

func (x *extraction) tarGzip(r *bufio.Reader) error {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return x.readError(err)
	}
	if err := x.tar(unzipped); err != nil {
		return err
	}
	return unzipped.Close()
}

// hoist moves the content of a folder that holds nothing but one folder up,
// and again where that holds nothing but one folder.
func hoist(dst string) error {
	top := dst
	for {
		entries, err := os.ReadDir(top)
		if err != nil {
			return err
		}
		if len(entries) != 1 || !entries[0].IsDir() {
			break
		}
		top = filepath.Join(top, entries[0].Name())
	}
	if top == dst {
		return nil
	}
	// By a name that nothing in top can have: a random one beside dst would need
	// rights there.
	entries, err := os.ReadDir(top)
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, entry := range entries {
		used[entry.Name()] = true
	}
	aside := "a"
	for used[aside] {
		aside += "a"
	}
	first, err := os.ReadDir(dst)
	if err != nil {
		return err
	}
	rest, err := filepath.Rel(filepath.Join(dst, first[0].Name()), top)
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dst, first[0].Name()), filepath.Join(dst, aside)); err != nil {
		return err
	}
	top = filepath.Join(dst, aside, rest)
	for _, entry := range entries {
		if err := os.Rename(filepath.Join(top, entry.Name()), filepath.Join(dst, entry.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(dst, aside))
}

// countReader counts what is read and ends at its bound.
type countReader struct {
	r      io.Reader
	n, max int64
	err    error // r's own, kept to tell it from the archive's
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.n > c.max {
		return 0, tooLarge("more than %d bytes", c.max)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// quoted shows a name that may be anything.
func quoted(name string) string {
	const shown = 100
	if len(name) > shown {
		name = name[:shown] + "…"
	}
	return fmt.Sprintf("%q", strings.ToValidUTF8(name, "\uFFFD"))
}
