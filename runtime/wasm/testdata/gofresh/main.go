// Prints what must be fresh in every request: a variable, an argument, the
// clocks and random numbers; see fresh.c. The seed of the generator is the
// language's own.
package main

import (
	crand "crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

var began = time.Now()

func main() {
	_, _ = io.ReadAll(os.Stdin)
	who := os.Getenv("WHO")
	if who == "" {
		who = "nobody"
	}
	var b [8]byte
	_, _ = crand.Read(b[:])
	fmt.Printf("%s %s\n%s\n%d\n%d\n%x\n", os.Args[len(os.Args)-1], who, hex.EncodeToString(b[:]), time.Now().UnixNano(), time.Since(began), rand.Uint64())
}
