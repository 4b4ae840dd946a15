package httpparse

import (
	"strconv"
	"time"
)

const (
	// statusMin and statusMax bound the statuses of RFC 9110 section 15.
	statusMin = 100
	statusMax = 599

	// statusOfNonsense answers in place of a status outside those bounds.
	statusOfNonsense = 500
)

// statusTexts are the reason phrases of the registered statuses.
// Source: RFC 9110 section 15 and the IANA HTTP Status Code Registry.
var statusTexts = [statusMax + 1]string{
	100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
	414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
	421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 424: "Failed Dependency",
	425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
	431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
	507: "Insufficient Storage", 508: "Loop Detected", 510: "Not Extended", 511: "Network Authentication Required",
}

// statusLines are whole status lines, so that a status costs one copy.
var statusLines = buildStatusLines()

func buildStatusLines() (t [statusMax + 1]string) {
	for i := statusMin; i <= statusMax; i++ {
		// The space behind the status stands even before an empty phrase.
		t[i] = "HTTP/1.1 " + strconv.Itoa(i) + " " + statusTexts[i] + "\r\n"
	}
	return t
}

// StatusText returns the reason phrase of a status, "" when it is not
// registered.
func StatusText(status int) string {
	if status < statusMin || status > statusMax {
		return ""
	}
	return statusTexts[status]
}

// AppendStatusLine appends the status line of a response with its CRLF. The
// version is 1.1 whatever the request's was (RFC 9110 section 2.5). A status
// outside 100 to 599 is sent as 500.
//
// Source: RFC 9112 section 4.
func AppendStatusLine(dst []byte, status int) []byte {
	if status < statusMin || status > statusMax {
		status = statusOfNonsense
	}
	return append(dst, statusLines[status]...)
}

// AppendField appends a field line with its CRLF.
//
// Nothing can be injected: a name that is no token, or a value with a control
// character other than HTAB, appends nothing at all. Whoever must know asks
// ValidFieldName and ValidFieldValue first.
//
// Source: RFC 9112 section 5.
func AppendField(dst []byte, name, value string) []byte {
	if len(name) == 0 {
		return dst
	}
	for i := range len(name) {
		if class[name[i]]&isToken == 0 {
			return dst
		}
	}
	for i := range len(value) {
		if class[value[i]]&isValue == 0 {
			return dst
		}
	}
	dst = append(dst, name...)
	dst = append(dst, ':', ' ')
	dst = append(dst, value...)
	return append(dst, '\r', '\n')
}

// AppendFieldBytes is AppendField for bytes.
func AppendFieldBytes(dst, name, value []byte) []byte {
	if !ValidFieldName(name) || !ValidFieldValue(value) {
		return dst
	}
	dst = append(dst, name...)
	dst = append(dst, ':', ' ')
	dst = append(dst, value...)
	return append(dst, '\r', '\n')
}

// AppendContentLength appends the field Content-Length with its CRLF. A
// negative n, which no length is, is a defect of the caller: panic.
func AppendContentLength(dst []byte, n int64) []byte {
	if n < 0 {
		panic("httpparse: negative Content-Length")
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}

// DateBytes is the length of what AppendDate appends.
const DateBytes = len("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")

// AppendDate appends the field Date with its CRLF, DateBytes long, for a time
// in seconds since the epoch. Callers keep the result for a second. Years
// outside 0 to 9999, which the format cannot tell, are a defect of the caller's
// clock; the epoch is sent for them.
//
// Source: RFC 9110 section 5.6.7 (IMF-fixdate).
func AppendDate(dst []byte, unix int64) []byte {
	t := time.Unix(unix, 0).UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		t = time.Unix(0, 0).UTC()
	}
	return t.AppendFormat(dst, "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")
}

// AppendChunkSize appends the line that opens a chunk of n bytes. The caller
// appends the data and CRLF. n is above 0: a chunk of 0 ends the body, for
// which AppendLastChunk is there.
//
// Source: RFC 9112 section 7.1.
func AppendChunkSize(dst []byte, n int) []byte {
	if n <= 0 {
		panic("httpparse: chunk without data")
	}
	dst = strconv.AppendInt(dst, int64(n), 16)
	return append(dst, '\r', '\n')
}

// AppendLastChunk appends the end of a chunked body, without trailers.
func AppendLastChunk(dst []byte) []byte { return append(dst, "0\r\n\r\n"...) }
