package sys

import (
	"net/netip"
	"strconv"
)

// Peer is the address of a client: a value of fixed size without pointers, as
// it travels in a donation. The zero value is no address.
type Peer struct {
	IP   [16]byte // an IPv4 address is mapped: ::ffff:a.b.c.d
	Port uint16
	V4   bool // IP is a mapped IPv4 address and is shown as such
}

// PeerFrom is the Peer of a.
func PeerFrom(a netip.AddrPort) Peer {
	if !a.Addr().IsValid() {
		return Peer{}
	}
	return Peer{IP: a.Addr().As16(), Port: a.Port(), V4: a.Addr().Is4() || a.Addr().Is4In6()}
}

// Addr returns the address and port.
func (p Peer) Addr() netip.AddrPort { return netip.AddrPortFrom(p.ip(), p.Port) }

// AppendIP appends the address without the port ("192.0.2.1", "2001:db8::1").
// It allocates only when dst is too small.
func (p Peer) AppendIP(dst []byte) []byte { return p.ip().AppendTo(dst) }

// AppendTo appends address and port ("192.0.2.1:80", "[2001:db8::1]:80"). It
// allocates only when dst is too small.
func (p Peer) AppendTo(dst []byte) []byte {
	var ip [len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]byte
	return p.AppendPort(dst, p.AppendIP(ip[:0]))
}

// AppendPort is AppendTo for a caller that has what AppendIP appends.
func (p Peer) AppendPort(dst, ip []byte) []byte {
	if p.V4 {
		dst = append(append(dst, ip...), ':')
	} else {
		dst = append(append(append(dst, '['), ip...), ']', ':')
	}
	return strconv.AppendUint(dst, uint64(p.Port), 10)
}

func (p Peer) ip() netip.Addr {
	a := netip.AddrFrom16(p.IP)
	if p.V4 {
		return a.Unmap()
	}
	return a
}
