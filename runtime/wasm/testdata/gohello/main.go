// The Go hello-world of the benchmarks: reads the body, writes a greeting.
package main

import (
	"io"
	"os"
)

func main() {
	body, _ := io.ReadAll(os.Stdin)
	os.Stdout.WriteString("hello " + string(body))
}
