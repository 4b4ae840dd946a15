// A Go function that keeps secrets: "scan" looks for one of an earlier
// request in the memory, everything else plants some and ends in that way.
package main

import (
	"fmt"
	"io"
	"os"
	"unsafe"
)

var (
	kept  []byte
	count int
	list  = map[string][]byte{}
)

const length = 48

func mark(i int) byte { return byte(0x80 | (i*37+11)&0x7f) }

func secret(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = mark(i % length)
	}
	return b
}

//go:noinline
func search(from, to uintptr) uintptr {
	for p := from; p+length <= to; p++ {
		i := 0
		for i < length && *(*byte)(unsafe.Pointer(p + uintptr(i))) == mark(i) {
			i++
		}
		if i == length {
			return p
		}
	}
	return 0
}

//go:noinline
func deep(n int) int {
	var frame [256]byte
	copy(frame[:], secret(256))
	if n == 0 {
		return int(frame[3])
	}
	return deep(n-1) + int(frame[n%256])
}

func main() {
	body, _ := io.ReadAll(os.Stdin)
	if string(body) == "scan" {
		top := uintptr(unsafe.Pointer(unsafe.SliceData(make([]byte, 64<<10))))
		if at := search(4096, top); at != 0 || kept != nil || count != 0 || len(list) != 0 {
			fmt.Printf("FOUND at %d of %d, %d %d %d", at, top, len(kept), count, len(list))
			return
		}
		fmt.Print("clean")
		return
	}
	kept = secret(1 << 20)
	count++
	for i := range 100 {
		list[string(secret(100+i))] = secret(2000)
	}
	deep(1000)
	fmt.Print("planted")
	switch string(body) {
	case "exit":
		os.Exit(3)
	case "panic":
		panic(string(secret(64)))
	case "spin":
		for {
			count++
		}
	}
}
