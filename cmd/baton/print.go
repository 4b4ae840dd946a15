package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// printJSON prints a value for other programs: indented, for people who look.
func printJSON(to io.Writer, value any) error {
	b, err := json.MarshalIndent(value, "", "  ")
	if err == nil {
		_, err = to.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// table prints rows in aligned columns, without blanks at line ends. A text
// that came from elsewhere cannot break the columns.
func table(to io.Writer, rows [][]string) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = plain(cell)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for line := range strings.Lines(text.String()) {
		if _, err := io.WriteString(to, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// plain replaces what would move a terminal's cursor or change its state: the
// text may be a row that a stranger wrote.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return '?'
		}
		return r
	}, text)
}

// plainLines is plain for a text of several lines, whose tabs stay too.
func plainLines(text string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, text)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || 0x80 <= r && r <= 0x9f }

// indented is a text of several lines, each plain and indented.
func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + plain(strings.TrimRight(line, "\n")) + "\n")
	}
	return b.String()
}

// shellWord is a text as one word for a shell, to be copied from what we print.
func shellWord(text string) string {
	if text != "" && strings.IndexFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._/:=@%+,", r)
	}) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
