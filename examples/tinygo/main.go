// Command shout says the request's body again, louder.
package main

import (
	"bytes"
	"io"
	"os"
)

func main() {
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString("Content-Type: text/plain\n\n")
	os.Stdout.Write(bytes.ToUpper(body))
}
