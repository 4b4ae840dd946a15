// Command sum adds the numbers of a JSON array.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	var numbers []float64
	if err := json.NewDecoder(os.Stdin).Decode(&numbers); err != nil {
		fmt.Printf("Status: 400\nContent-Type: application/json\n\n{\"error\":%q}\n", "want an array of numbers")
		return
	}
	sum := 0.0
	for _, n := range numbers {
		sum += n
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"count": len(numbers), "sum": sum})
}
