// Prints what must be fresh in every request.
package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

var greeting = os.Getenv("AT_INIT") // an initialiser that looks at the environment

func main() {
	body, _ := io.ReadAll(os.Stdin)
	fmt.Println(os.Args, os.Getenv("WHO"), len(os.Environ()), greeting, string(body))
	fmt.Println(rand.Uint64())
}
