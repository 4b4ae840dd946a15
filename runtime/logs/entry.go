package logs

import (
	"strconv"
	"time"

	"baton/internal/jsontext"
)

const (
	// TextBytesMax bounds the text of one line; the rest of a longer one is
	// cut, and the entry says how much.
	TextBytesMax = 8 << 10

	// lineBytesMax bounds one stored line. A byte of text becomes at most six
	// (\u0000); names and ids are short. Longer lines are damage.
	lineBytesMax = 6*TextBytesMax + 4<<10
)

// Entry is one line of the log. It is either a line of a function (Text), an
// invocation that failed (Failure), or lines that were lost (Dropped).
type Entry struct {
	Time     time.Time `json:"time"`
	Worker   int       `json:"worker"`
	Function string    `json:"function,omitempty"` // empty for Dropped
	Version  int       `json:"version,omitempty"`  // 0: the function was not deployed but named by a row
	Request  string    `json:"request,omitempty"`

	Text string `json:"text,omitempty"` // without its newline
	Cut  int    `json:"cut,omitempty"`  // bytes of the line that were cut

	Failure    string  `json:"failure,omitempty"` // the reason, as in the answer's error body
	Status     int     `json:"status,omitempty"`  // of the answer; 499: the client had left
	DurationMS float64 `json:"duration_ms,omitempty"`
	Detail     string  `json:"detail,omitempty"` // what trapped, where; not for a client

	Dropped uint64 `json:"dropped,omitempty"` // lines of this worker that found no room, before this one
}

// Failure is an invocation that did not succeed.
type Failure struct {
	Reason   string
	Status   int
	Duration time.Duration
	Detail   string // may be empty
}

// timeFormat has a fixed width, so that equal moments are equal texts.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// AppendJSON appends the entry as it is stored, without a newline. Read gives
// back an equal one.
func (e *Entry) AppendJSON(dst []byte) []byte {
	dst = appendHead(dst, e.Time, e.Worker)
	if e.Dropped > 0 {
		return appendDropped(dst, e.Dropped)
	}
	dst = appendName(dst, e.Function, e.Version, e.Request)
	if e.Failure != "" {
		return appendFailure(dst, e.Failure, e.Status, e.DurationMS, e.Detail)
	}
	return appendText(dst, e.Text, e.Cut)
}

func appendHead(dst []byte, at time.Time, worker int) []byte {
	dst = append(dst, `{"time":"`...)
	dst = at.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, `","worker":`...)
	return strconv.AppendInt(dst, int64(worker), 10)
}

func appendName[T string | []byte](dst []byte, function string, version int, request T) []byte {
	dst = append(dst, functionKey...)
	dst = jsontext.Append(dst, function)
	if version != 0 {
		dst = append(dst, `,"version":`...)
		dst = strconv.AppendInt(dst, int64(version), 10)
	}
	if len(request) > 0 {
		dst = append(dst, requestKey...)
		dst = jsontext.Append(dst, request)
	}
	return dst
}

func appendText[T string | []byte](dst []byte, text T, cut int) []byte {
	dst = append(dst, `,"text":`...)
	dst = jsontext.Append(dst, text)
	if cut > 0 {
		dst = append(dst, `,"cut":`...)
		dst = strconv.AppendInt(dst, int64(cut), 10)
	}
	return append(dst, '}')
}

func appendFailure(dst []byte, reason string, status int, millis float64, detail string) []byte {
	dst = append(dst, `,"failure":`...)
	dst = jsontext.Append(dst, reason)
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"duration_ms":`...)
	dst = strconv.AppendFloat(dst, millis, 'f', -1, 64)
	if detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = jsontext.Append(dst, detail)
	}
	return append(dst, '}')
}

func appendDropped(dst []byte, lines uint64) []byte {
	dst = append(dst, droppedKey...)
	dst = strconv.AppendUint(dst, lines, 10)
	return append(dst, '}')
}

// How these members begin in a stored line: Read looks for them before it
// parses one.
const (
	functionKey = `,"function":`
	requestKey  = `,"request":`
	droppedKey  = `,"dropped":`
)
