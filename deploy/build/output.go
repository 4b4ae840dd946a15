package build

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// lineMax bounds what is held back of a line that does not end, in bytes.
const lineMax = 16 << 10

// output takes what the commands of a build print: it cuts the paths of the
// build's folder down to the user's names, passes whole lines on, and keeps at
// most max bytes. What is printed above that is dropped, and ends the build.
type output struct {
	live  io.Writer
	max   int
	cut   *strings.Replacer
	width int // of the longest path that is cut

	mu     sync.Mutex
	line   []byte // held back: the end of a line is missing
	kept   bytes.Buffer
	excess bool
	ended  func() // called once, when there is too much
}

func newOutput(live io.Writer, max int, work string) *output {
	var pairs []string
	for _, dir := range []string{dirSrc, dirOut, dirTemp, dirHome} {
		pairs = append(pairs, work+"/"+dir+"/", "", work+"/"+dir, ".")
	}
	return &output{
		live: live, max: max, width: len(work) + len("/home/"),
		cut: strings.NewReplacer(append(pairs, work, ".")...),
	}
}

// onExcess has f called when there is too much, at once if there is already;
// nil: nobody.
func (o *output) onExcess(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = f
	if o.excess && f != nil {
		f()
	}
}

func (o *output) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.excess
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept.String()
}

// tail is the last line, for the log of the server.
func (o *output) tail() string {
	text := strings.TrimSpace(o.String() + string(o.line))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// Write never fails: a compiler is not told that nobody listens.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.excess {
		return len(p), nil
	}
	o.line = append(o.line, p...)
	if end := bytes.LastIndexByte(o.line, '\n') + 1; end > 0 {
		o.emit(end)
	}
	if len(o.line) > lineMax {
		o.emit(len(o.line) - o.width) // what is kept may be the start of a path
	}
	return len(p), nil
}

// flush passes on what is held back.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.emit(len(o.line))
}

// emit passes the first n bytes that are held back on. Under o.mu.
func (o *output) emit(n int) {
	if n <= 0 || o.excess {
		return
	}
	text := strings.ToValidUTF8(o.cut.Replace(string(o.line[:n])), "\uFFFD")
	o.line = append(o.line[:0], o.line[n:]...)
	if room := o.max - o.kept.Len(); len(text) > room {
		text = text[:room]
		o.excess = true
	}
	o.kept.WriteString(text)
	if o.live != nil {
		_, _ = io.WriteString(o.live, text)
	}
	if o.excess {
		o.line = nil
		if o.ended != nil {
			o.ended()
		}
	}
}
