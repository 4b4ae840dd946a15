package sys

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// zoneOf returns the number of the interface that a scoped IPv6 address names.
func zoneOf(ip netip.Addr) (uint32, error) {
	zone := ip.Zone()
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone of %s: %w", ip, err)
	}
	return uint32(i.Index), nil
}
