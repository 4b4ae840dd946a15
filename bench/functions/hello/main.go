// hello: answers with the token of its query.
package main

import (
	"os"
	"strings"
)

func main() {
	_, token, _ := strings.Cut(os.Getenv("QUERY_STRING"), "t=")
	os.Stdout.WriteString(`{"token":"` + token + "\"}\n")
}
