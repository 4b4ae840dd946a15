package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of a descriptor. A value beyond its bound is a FieldError that names
// the bound; nothing is cut or rounded.
const (
	valueBytesMax   = 64 << 10 // the JSON text of one row
	fieldsMax       = 64       // fields in one object; the rest is not looked at
	nestingMax      = 8        // depth of a skipped value
	nameBytesMax    = 64
	moduleBytesMax  = 512
	handlerBytesMax = 256
	filesBytesMax   = 512
	envEntriesMax   = 128
	envNameBytesMax = 128
	envBytesMax     = 32 << 10 // all names and values together

	memoryMax    = 4096 // MB: all that a 32-bit linear memory can hold
	timeoutMin   = time.Millisecond
	timeoutMax   = time.Hour
	maxBodyMax   = int64(1) << 40
	inflightMax  = 1 << 20
	processesMax = 4096
)

// What a descriptor means when it does not say.
const (
	MemoryDefaultMB = 128
	TimeoutDefault  = 30 * time.Second
	MaxBodyDefault  = int64(10) << 20 // bytes
)

// Descriptor is what one row says about its function, with every default
// filled in. It is a plain value: whoever parsed it owns it.
type Descriptor struct {
	Name        string        // [A-Za-z0-9][A-Za-z0-9._-]{0,63}
	Runtime     string        // one of Runtimes; "c++" is read as "cpp"
	Module      string        // artifact: see ResolveModule; empty only before a build
	Handler     string        // which of the module's functions to run; may be empty
	MemoryMB    int           // 1..4096
	Timeout     time.Duration // 1 ms..1 h
	Method      string        // as in the row's key, or empty
	Path        string        // as in the row's key, or empty
	Env         []string      // "NAME=value", ascending by name, no name twice
	Files       string        // directory of the function's own files, relative; or empty
	Target      string        // "", "wasm" or "native"; c and cpp only
	Network     bool          // may open network connections
	Freeze      bool          // a prebuilt module may be started from a snapshot
	Processes   int           // further processes it may start; 0: none
	MaxBody     int64         // bytes of a request's body; 0: no body
	MaxInflight int           // requests at a time over all workers; 0: no limit
}

// FieldError is one wrong field of a descriptor.
type FieldError struct {
	Field string // its name; "descriptor" for the object as a whole
	Want  string // what is expected there
	Got   string // what was found, shortened; may be empty
}

func (e *FieldError) Error() string {
	if e.Got == "" {
		return e.Field + ": want " + e.Want
	}
	return e.Field + ": want " + e.Want + ", got " + e.Got
}

// Runtimes are the kinds a descriptor's runtime may name.
func Runtimes() []string {
	return []string{"wasm", "php", "c", "cpp", "c++", "go", "rust", "tinygo", "python", "native"}
}

// The known fields, in the order in which they are written, and the reserved
// ones. The place in fieldNames is the field's number.
var fieldNames = [...]string{"name", "runtime", "module", "handler", "memory", "timeout", "method", "path",
	"env", "files", "target", "network", "freeze", "processes", "max_body", "max_inflight"}

var reservedNames = [...]string{"host", "auth", "cors", "rate", "secrets", "response"}

// ParseDescriptor reads one JSON object, at most 64 KiB of it.
//
// The result is complete: every default is filled in. Method and Path stay
// empty when the object does not give them. Module may be empty, because a
// descriptor that comes with source code has none yet; ParseRow demands it.
//
// The error joins one *FieldError per wrong field (errors.As finds the first,
// FieldErrors all of them): every fault is reported at once, unless the text
// is no JSON object at all. Unknown fields are refused by name with the
// nearest known one, the same field twice is refused, and so are the fields
// reserved for a later release. v is not kept.
func ParseDescriptor(v []byte) (*Descriptor, error) {
	if len(v) > valueBytesMax {
		return nil, &FieldError{"descriptor", fmt.Sprintf("at most %d bytes", valueBytesMax), fmt.Sprintf("%d", len(v))}
	}
	if !utf8.Valid(v) {
		return nil, &FieldError{"descriptor", "UTF-8 text", "other bytes"}
	}
	p := descriptorParser{d: Descriptor{MemoryMB: MemoryDefaultMB, Timeout: TimeoutDefault, MaxBody: MaxBodyDefault}}
	p.object(v)
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	d := p.d
	return &d, nil
}

// FieldErrors lists the wrong fields that err, from ParseDescriptor, ParseRow
// or a RowError, is made of.
func FieldErrors(err error) []*FieldError {
	switch e := err.(type) {
	case nil:
		return nil
	case *FieldError:
		return []*FieldError{e}
	case interface{ Unwrap() []error }:
		var all []*FieldError
		for _, one := range e.Unwrap() {
			all = append(all, FieldErrors(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return FieldErrors(e.Unwrap())
	}
	return nil
}

type descriptorParser struct {
	d    Descriptor
	seen [len(fieldNames)]bool
	errs []error
}

func (p *descriptorParser) wrong(field, want, got string) {
	p.errs = append(p.errs, &FieldError{field, want, got})
}

// object reads the whole text. A fault of JSON's own grammar ends the reading.
func (p *descriptorParser) object(v []byte) {
	s := scanner{b: v}
	if !s.open('{') {
		p.wrong("descriptor", "one JSON object", excerpt(string(v)))
		return
	}
	fields := 0
	var unknown map[string]bool
	for s.next('}', fields) {
		fields++
		name, ok := s.name()
		if !ok {
			break
		}
		value, ok := s.value()
		if !ok {
			break
		}
		if fields > fieldsMax {
			p.wrong("descriptor", fmt.Sprintf("at most %d fields", fieldsMax), "more")
			return
		}
		number := fieldNumber(name)
		if number < 0 {
			if unknown[name] {
				continue
			}
			if unknown == nil {
				unknown = make(map[string]bool)
			}
			unknown[name] = true
			p.unknown(name)
			continue
		}
		if p.seen[number] {
			p.wrong(name, "to be given once", "it twice")
			continue
		}
		p.seen[number] = true
		p.field(number, value)
	}
	if s.why != "" {
		p.wrong("descriptor", "one JSON object", fmt.Sprintf("%s at byte %d", s.why, s.i))
		return
	}
	if !s.end() {
		p.wrong("descriptor", "nothing after the object", excerpt(string(v[s.i:])))
	}
	if !p.seen[0] {
		p.wrong("name", "a name: "+nameRule, "")
	}
	if !p.seen[1] {
		p.wrong("runtime", "one of "+strings.Join(Runtimes(), ", "), "")
	}
	if p.d.Target != "" && p.d.Runtime != "" && p.d.Runtime != "c" && p.d.Runtime != "cpp" {
		p.wrong("target", "a target with runtime c or cpp only", strconv.Quote(p.d.Runtime))
	}
}

func (p *descriptorParser) unknown(name string) {
	for _, r := range reservedNames {
		if name == r {
			p.wrong(name, "no such field yet: it is reserved for a later release", "")
			return
		}
	}
	want := "a known field"
	if n := nearest(name); n != "" {
		want = "a known field; did you mean " + strconv.Quote(n) + "?"
	}
	p.wrong(excerpt(name), want, "")
}

const nameRule = "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"

// field reads the value of one known field into p.d.
func (p *descriptorParser) field(number int, v []byte) {
	d, name := &p.d, fieldNames[number]
	switch name {
	case "name":
		p.text(name, v, &d.Name, nameRule, validName)
	case "runtime":
		p.text(name, v, &d.Runtime, "one of "+strings.Join(Runtimes(), ", "), validRuntime)
		if d.Runtime == "c++" {
			d.Runtime = "cpp"
		}
	case "module":
		p.text(name, v, &d.Module, moduleRule, validModule)
	case "handler":
		p.text(name, v, &d.Handler, fmt.Sprintf("text of at most %d bytes without control characters", handlerBytesMax), func(s string) bool {
			return len(s) <= handlerBytesMax && printable(s)
		})
	case "memory":
		if n, ok := p.whole(name, v, "a whole number of MB", 1, memoryMax); ok {
			d.MemoryMB = int(n)
		}
	case "timeout":
		p.timeout(v)
	case "method":
		p.text(name, v, &d.Method, "one of "+methodList, func(s string) bool { return methodNumber(s) != methodUnknown })
	case "path":
		var path string
		p.text(name, v, &path, "a path", func(string) bool { return true })
		if path == "" {
			break
		}
		if why := checkPattern(path); why != "" {
			p.wrong(name, why, quote(path))
			break
		}
		d.Path = path
	case "env":
		p.env(v)
	case "files":
		p.text(name, v, &d.Files, "a relative directory beside the module, without . and .. in it", func(s string) bool {
			return len(s) <= filesBytesMax && relative(s)
		})
	case "target":
		p.text(name, v, &d.Target, `"wasm" or "native"`, func(s string) bool { return s == "wasm" || s == "native" })
	case "network":
		p.boolean(name, v, &d.Network)
	case "freeze":
		p.boolean(name, v, &d.Freeze)
	case "processes":
		if n, ok := p.whole(name, v, "a whole number of processes", 0, processesMax); ok {
			d.Processes = int(n)
		}
	case "max_body":
		if n, ok := p.whole(name, v, "a whole number of bytes", 0, maxBodyMax); ok {
			d.MaxBody = n
		}
	case "max_inflight":
		if n, ok := p.whole(name, v, "a whole number of requests (0: no limit)", 0, inflightMax); ok {
			d.MaxInflight = int(n)
		}
	}
}

// text reads a JSON string that valid accepts. An empty one is refused: the
// way to say nothing is to leave the field out; handler alone may be empty.
func (p *descriptorParser) text(field string, v []byte, to *string, want string, valid func(string) bool) {
	s, ok := unquote(v)
	if !ok || !valid(s) || s == "" && field != "handler" {
		p.wrong(field, want, excerpt(string(v)))
		return
	}
	*to = s
}

func (p *descriptorParser) boolean(field string, v []byte, to *bool) {
	switch string(v) {
	case "true":
		*to = true
	case "false":
		*to = false
	default:
		p.wrong(field, "true or false", excerpt(string(v)))
	}
}

func (p *descriptorParser) whole(field string, v []byte, what string, low, high int64) (int64, bool) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		// 128.0 and 1e3 are whole too.
		f, ferr := strconv.ParseFloat(string(v), 64)
		if ferr != nil || !isNumber(v) || f != float64(int64(f)) {
			p.wrong(field, fmt.Sprintf("%s from %d to %d", what, low, high), excerpt(string(v)))
			return 0, false
		}
		n = int64(f)
	}
	if n < low || high < n {
		p.wrong(field, fmt.Sprintf("%s from %d to %d", what, low, high), excerpt(string(v)))
		return 0, false
	}
	return n, true
}

// timeout reads seconds, kept to the whole microsecond.
func (p *descriptorParser) timeout(v []byte) {
	want := fmt.Sprintf("a number of seconds from %v to %v", timeoutMin.Seconds(), timeoutMax.Seconds())
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || !isNumber(v) || f < timeoutMin.Seconds() || timeoutMax.Seconds() < f {
		p.wrong("timeout", want, excerpt(string(v)))
		return
	}
	p.d.Timeout = time.Duration(f*1e6+0.5) * time.Microsecond
}

func (p *descriptorParser) env(v []byte) {
	s := scanner{b: v}
	if !s.open('{') {
		p.wrong("env", "an object of texts", excerpt(string(v)))
		return
	}
	var names []string
	values := make(map[string]string)
	bytes, entries := 0, 0
	for s.next('}', entries) {
		entries++
		name, ok := s.name()
		if !ok {
			break
		}
		value, ok := s.value()
		if !ok {
			break
		}
		if entries > envEntriesMax {
			p.wrong("env", fmt.Sprintf("at most %d entries", envEntriesMax), "more")
			return
		}
		text, ok := unquote(value)
		_, twice := values[name]
		switch {
		case !validEnvName(name):
			p.wrong("env", "names of A-Z a-z 0-9 _, the first no digit", quote(name))
		case twice:
			p.wrong("env."+name, "to be given once", "it twice")
		case !ok || strings.IndexByte(text, 0) >= 0:
			p.wrong("env."+name, "a text without NUL", excerpt(string(value)))
		default:
			names = append(names, name)
			bytes += len(name) + len(text) + 2
		}
		values[name] = text
	}
	if s.why != "" || bytes > envBytesMax {
		p.wrong("env", fmt.Sprintf("at most %d bytes", envBytesMax), strconv.Itoa(bytes))
		return
	}
	sort.Strings(names)
	for _, n := range names {
		p.d.Env = append(p.d.Env, n+"="+values[n])
	}
}

// AppendJSON writes the descriptor as one JSON object that ParseDescriptor
// reads back to an equal one: the identity (name, runtime, module) first, then
// what differs from the default.
func (d *Descriptor) AppendJSON(dst []byte) []byte {
	text := func(name, value string) {
		if value == "" {
			return
		}
		dst = append(append(append(dst, ',', '"'), name...), '"', ':')
		dst = appendQuoted(dst, value)
	}
	number := func(name string, value, absent int64) {
		if value == absent {
			return
		}
		dst = append(append(append(dst, ',', '"'), name...), '"', ':')
		dst = strconv.AppendInt(dst, value, 10)
	}
	flag := func(name string, value bool) {
		if value {
			dst = append(append(append(dst, ',', '"'), name...), `":true`...)
		}
	}
	start := len(dst)
	text("name", d.Name)
	text("runtime", d.Runtime)
	text("module", d.Module)
	text("handler", d.Handler)
	number("memory", int64(d.MemoryMB), MemoryDefaultMB)
	if d.Timeout != TimeoutDefault {
		dst = append(dst, `,"timeout":`...)
		dst = strconv.AppendFloat(dst, float64(d.Timeout/time.Microsecond)/1e6, 'f', -1, 64)
	}
	text("method", d.Method)
	text("path", d.Path)
	if len(d.Env) > 0 {
		dst = append(dst, `,"env":`...)
		open := byte('{')
		for _, e := range d.Env {
			name, value, _ := strings.Cut(e, "=")
			dst = append(dst, open)
			dst = append(appendQuoted(dst, name), ':')
			dst = appendQuoted(dst, value)
			open = ','
		}
		dst = append(dst, '}')
	}
	text("files", d.Files)
	text("target", d.Target)
	flag("network", d.Network)
	flag("freeze", d.Freeze)
	number("processes", int64(d.Processes), 0)
	number("max_body", d.MaxBody, MaxBodyDefault)
	number("max_inflight", int64(d.MaxInflight), 0)
	if len(dst) == start {
		return append(dst, '{', '}')
	}
	dst[start] = '{'
	return append(dst, '}')
}

// ResolveModule turns a descriptor's module into the absolute path of its
// artifact. A module is `functions/<id>/<version>/<file>` or `import/<file>`
// under the data directory; an absolute path is accepted when it lies inside
// one of those two. The check is of the text only: whoever opens the file
// refuses links.
func ResolveModule(dataDir, module string) (string, error) {
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("resolve module: %w", err)
	}
	abs = strings.TrimSuffix(abs, "/")
	rel := module
	if strings.HasPrefix(module, "/") {
		rest, inside := strings.CutPrefix(module, abs+"/")
		if !inside {
			return "", &FieldError{"module", "an artifact of this data directory or a file under its import folder", quote(module)}
		}
		rel = rest
	}
	if strings.HasPrefix(rel, "/") || !validModule(rel) {
		return "", &FieldError{"module", moduleRule, quote(module)}
	}
	return abs + "/" + rel, nil
}

const moduleRule = "functions/… or import/… under the data directory, without . and .. in it"

// validModule accepts the relative form and, without knowing the data
// directory, any clean absolute path; ResolveModule decides about those.
func validModule(s string) bool {
	if len(s) > moduleBytesMax {
		return false
	}
	if rest, absolute := strings.CutPrefix(s, "/"); absolute {
		return relative(rest)
	}
	return relative(s) && (strings.HasPrefix(s, "functions/") || strings.HasPrefix(s, "import/"))
}

// relative says whether s is a clean relative path: no empty, "." or ".."
// segment, no control character, no backslash.
func relative(s string) bool {
	if !printable(s) || strings.Contains(s, `\`) {
		return false
	}
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

func validName(s string) bool {
	if len(s) == 0 || nameBytesMax < len(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

func validRuntime(s string) bool {
	for _, r := range Runtimes() {
		if s == r {
			return true
		}
	}
	return false
}

func validEnvName(s string) bool {
	if len(s) == 0 || envNameBytesMax < len(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || '9' < c) {
			return false
		}
	}
	return true
}

func fieldNumber(name string) int {
	for i, n := range fieldNames {
		if n == name {
			return i
		}
	}
	return -1
}

// nearest is the known field closest to name: at most two edits away, and
// fewer than its own length; or empty.
func nearest(name string) string {
	if len(name) > 32 {
		return ""
	}
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	best, at := "", 3
	for _, known := range fieldNames {
		if n := edits(name, known); n < at && n < len(known) {
			best, at = known, n
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// excerpt shortens foreign text for a message.
func excerpt(s string) string {
	const most = 60
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '·'
		}
		return r
	}, s)
}

func quote(s string) string { return strconv.Quote(excerpt(s)) }

func appendQuoted(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("route: a text cannot be written as JSON: " + err.Error())
	}
	return append(dst, b...)
}
