package gateway

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"baton/control"
)

// invokeDial bounds the wait for a connection to our own port.
const invokeDial = 5 * time.Second

// invoke calls a function as any client does, through the front door: a worker
// answers it, with all that a request has. The answer's body is the caller's to
// close; its context ends the call.
func (g *gateway) invoke(ctx context.Context, i control.Invocation) (*http.Response, error) {
	target := url.URL{Scheme: "http", Host: "baton", Path: "/function/" + i.Name, RawQuery: i.Query}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(i.Body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Request-Id", i.RequestID)
	r.Header.Set("User-Agent", "baton")
	if i.ContentType != "" {
		r.Header.Set("Content-Type", i.ContentType)
	}
	r.Close = true
	address := dialable(g.front.Addr())
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: invokeDial}
			return d.DialContext(ctx, network, address.String())
		},
	}
	return transport.RoundTrip(r) // not a Client: it would follow the function's redirects
}

// dialable is an address of ours that a process on this machine can connect to.
// A socket of every address takes IPv4 too, which a machine without IPv6 has.
func dialable(a netip.AddrPort) netip.AddrPort {
	if a.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return a
}
