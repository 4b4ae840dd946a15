package reactor

import (
	"strconv"

	"baton/httpparse"
	"baton/internal/jsontext"
)

// Components that an error made by the platform names as its origin. What the
// parser and the policies refuse is the gateway's verdict in either process:
// it must be the same, byte for byte, wherever the head was parsed.
const (
	componentGateway  = "gateway"
	componentWorker   = "worker"
	componentFunction = "function"
)

// appendHead appends the status line and the fields that every answer has. The
// caller appends its own fields and the empty line.
func (k *call) appendHead(dst []byte, status int) []byte {
	dst = httpparse.AppendStatusLine(dst, status)
	dst = append(dst, k.loop.date[:]...)
	dst = append(dst, "X-Request-Id: "...)
	dst = append(dst, k.id[:k.idLen]...)
	dst = append(dst, "\r\n"...)
	switch {
	case k.conn.closing:
		dst = append(dst, "Connection: close\r\n"...)
	case k.req.Minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return dst
}

// appendError appends a whole answer in the form that design.md, section 5,
// gives to errors made by the platform. extra is whole field lines, or nil.
func (k *call) appendError(dst []byte, status int, component, reason, text string, extra []byte) []byte {
	dst = k.appendHead(dst, status)
	dst = append(dst, "Content-Type: application/json\r\nX-Baton-Error: "...)
	dst = append(dst, component...)
	dst = append(dst, "\r\n"...)
	dst = append(dst, extra...)
	// Reasons, components and ids need no escapes.
	body := append(k.body[:0], `{"error":`...)
	body = jsontext.Append(body, text)
	body = append(body, `,"component":"`...)
	body = append(body, component...)
	body = append(body, `","reason":"`...)
	body = append(body, reason...)
	body = append(body, `","requestId":"`...)
	body = append(body, k.id[:k.idLen]...)
	body = append(body, `"}`...)
	k.body = body[:0]
	dst = httpparse.AppendContentLength(dst, int64(len(body)))
	dst = append(dst, "\r\n"...)
	if k.noBody(status) {
		return dst
	}
	return append(dst, body...)
}

// appendPlain appends a whole answer with a JSON body of our own.
func (k *call) appendPlain(dst []byte, status int, body string) []byte {
	dst = k.appendHead(dst, status)
	dst = append(dst, "Content-Type: application/json\r\n"...)
	dst = httpparse.AppendContentLength(dst, int64(len(body)))
	dst = append(dst, "\r\n"...)
	if k.noBody(status) {
		return dst
	}
	return append(dst, body...)
}

// noBody says whether an answer goes without its body.
// Source: RFC 9110 sections 9.3.2 (HEAD), 15.3.5 (204), 15.3.6 (205) and 15.4.5
// (304).
func (k *call) noBody(status int) bool {
	return status == 204 || status == 205 || status == 304 || string(k.req.Method) == "HEAD"
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }
