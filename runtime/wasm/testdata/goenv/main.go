// Says everything that a program can learn of its environment, changes it, and
// says it again.
package main

import (
	"os"
	"strings"
)

func say() {
	var b strings.Builder
	for _, kv := range os.Environ() { // in the host's order
		name, _, _ := strings.Cut(kv, "=")
		value, there := os.LookupEnv(name)
		b.WriteString(kv + " -> " + value)
		if !there {
			b.WriteString(" is not there")
		}
		b.WriteByte('\n')
	}
	os.Stdout.WriteString(b.String())
}

func main() {
	say()
	for _, name := range []string{"QUERY_STRING", "HTTP_COOKIE", "_HANDLER", "NOBODY", "A"} {
		value, there := os.LookupEnv(name)
		if !there {
			value = "(none)"
		}
		os.Stdout.WriteString(name + ": " + value + "\n")
	}
	os.Setenv("HTTP_COOKIE", "set")
	os.Setenv("NOBODY", "set")
	os.Unsetenv("QUERY_STRING")
	os.Stdout.WriteString(os.Getenv("HTTP_COOKIE") + os.Getenv("NOBODY") + os.Getenv("QUERY_STRING") + "\n")
	os.Clearenv()
	say()
}
