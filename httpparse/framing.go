package httpparse

import (
	"bytes"
	"math"
)

// finish judges what only the whole head can tell.
func (r *Request) finish() Reason {
	if r.seen&seenHost == 0 && r.Minor != 0 {
		return ReasonMissingHost
	}
	// RFC 9112 section 9.3; close wins over keep-alive.
	r.KeepAlive = r.seen&seenConnectionClose == 0 &&
		(r.Minor != 0 || r.seen&seenConnectionKeepAlive != 0)
	return ReasonNone
}

// onHost: RFC 9112 section 3.2: once and valid. v is the start of tail.
func (r *Request) onHost(v, tail []byte) Reason {
	if r.seen&seenHost != 0 {
		return ReasonRepeatedHost
	}
	r.seen |= seenHost
	i := 0
	for {
		if stop := hostStop(wordAt(tail, i)); stop != 0 {
			i += firstLane(stop)
			break
		}
		i += 8
	}
	if i != len(v) {
		// Mostly a port; one of up to four digits is in range.
		port := firstLane(digitStop(wordAt(tail, i+1)))
		if (v[i] != ':' || port > 4 || i+1+port != len(v) || i == 0) && !validHostFrom(v, i) {
			return ReasonBadHost
		}
	}
	if r.Authority == nil {
		r.Authority = v
	}
	return ReasonNone
}

// onExpect: RFC 9110 section 10.1.1; in HTTP/1.0 the expectation is ignored.
func (r *Request) onExpect(v []byte) Reason {
	if !equalFold(v, "100-continue") {
		return ReasonUnsupportedExpectation
	}
	r.ExpectContinue = r.Minor != 0
	return ReasonNone
}

// onConnection: RFC 9110 section 7.6.1: a list of tokens, empty elements
// ignored.
func (r *Request) onConnection(v []byte) Reason {
	if len(v) == len("keep-alive") && foldedAt(v, 0) == wordKeepAliv && foldedAt(v, 2) == wordEpAlive {
		r.seen |= seenConnectionKeepAlive
		return ReasonNone
	}
	for len(v) > 0 {
		var option []byte
		option, v = nextElement(v)
		switch {
		case !all(option, isToken):
			return ReasonBadConnection
		case equalFold(option, "close"):
			r.seen |= seenConnectionClose
		case equalFold(option, "keep-alive"):
			r.seen |= seenConnectionKeepAlive
		}
	}
	return ReasonNone
}

// nextElement cuts the first element off a comma-separated list.
func nextElement(v []byte) (element, rest []byte) {
	if i := bytes.IndexByte(v, ','); i >= 0 {
		return trim(v[:i]), v[i+1:]
	}
	return trim(v), nil
}

// onRequestID takes over a client's request id when it is one of ours in form.
func (r *Request) onRequestID(v []byte) {
	if r.seen&seenRequestID != 0 {
		return
	}
	r.seen |= seenRequestID
	if ValidRequestID(v) {
		r.RequestID = v
	}
}

// onContentLength: RFC 9112 section 6.3, RFC 9110 section 8.6: digits only.
// Stricter: once only, where a list of one value repeated might be accepted.
func (r *Request) onContentLength(v []byte) Reason {
	if r.ContentLength >= 0 {
		return ReasonRepeatedContentLength
	}
	if r.Chunked {
		return ReasonLengthAndTransferEncoding
	}
	n, ok := parseLength(v)
	if !ok {
		return ReasonBadContentLength
	}
	r.ContentLength = n
	return ReasonNone
}

// digitsSafe decimal digits always fit int64.
const digitsSafe = 18

// parseLength reads a decimal number of any number of digits that fits int64.
func parseLength(v []byte) (n int64, ok bool) {
	for i, c := range v {
		d := int64(c) - '0'
		if d < 0 || d > 9 || i >= digitsSafe && n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, len(v) > 0
}

// onTransferEncoding: RFC 9112 sections 6.1 and 6.3: chunked alone is known
// here, so it is the only coding, once, never in HTTP/1.0 and never beside a
// Content-Length.
func (r *Request) onTransferEncoding(v []byte) Reason {
	if r.seen&seenTransferEncoding != 0 {
		return ReasonRepeatedTransferEncoding
	}
	r.seen |= seenTransferEncoding
	if r.Minor == 0 {
		return ReasonTransferEncodingHTTP10
	}
	if r.ContentLength >= 0 {
		return ReasonLengthAndTransferEncoding
	}
	if equalFold(v, "chunked") {
		r.Chunked = true
		return ReasonNone
	}
	return reasonOfCodings(v)
}

// reasonOfCodings tells a list of codings that nobody here understands (501)
// from one that is malformed or has chunked twice or not last (400).
func reasonOfCodings(v []byte) Reason {
	if len(v) == 0 {
		return ReasonBadTransferEncoding
	}
	chunked := false
	for v != nil {
		var coding []byte
		coding, v = nextElement(v)
		// A coding may have parameters behind ';', which change nothing here.
		if i := bytes.IndexByte(coding, ';'); i >= 0 && !equalFold(trim(coding[:i]), "chunked") {
			coding = trim(coding[:i])
		}
		if chunked || !ValidFieldName(coding) {
			return ReasonBadTransferEncoding
		}
		chunked = equalFold(coding, "chunked")
	}
	return ReasonUnsupportedTransferEncoding
}
