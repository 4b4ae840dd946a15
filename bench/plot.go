package bench

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
)

// Measures of a plot, in pixels.
const (
	plotWidth = 720
	plotLeft  = 220 // where the bars begin
	plotRight = 90  // room for the ratio behind the longest bar
	plotBar   = 18
	plotStep  = 28
	plotHead  = 44
)

// plotStyle suits light and dark pages.
const plotStyle = `text{font:13px system-ui,sans-serif;fill:#1c2430}.q{fill:#5b6675}.b{fill:#2f6fdb}.o{fill:#aab4c2}.w{stroke:#1c2430;stroke-width:1.5}` +
	`@media(prefers-color-scheme:dark){text{fill:#e8ecf2}.q{fill:#9aa5b4}.b{fill:#6ea1ff}.o{fill:#5b6675}.w{stroke:#e8ecf2}}`

// Plot draws a result: a bar a contestant, as long as its ratio to the first,
// with a line from the lowest to the highest round. It loads nothing.
func (r Result) Plot() string {
	base := r.Series[0]
	longest := 1.0
	for _, s := range r.Series {
		longest = max(longest, s.ratio(base, rate).max)
	}
	x := func(ratio float64) float64 { return plotLeft + ratio/longest*(plotWidth-plotLeft-plotRight) }
	var b strings.Builder
	height := plotHead + plotStep*len(r.Series) + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"><style>%s</style>`, plotWidth, height, plotStyle)
	fmt.Fprintf(&b, `<title>%s</title><text x="0" y="16" font-weight="600">%s</text><text x="0" y="33" class="q">%s; requests per second, the first is 1</text>`,
		html.EscapeString(r.Workload.Name), html.EscapeString(r.Workload.Name), html.EscapeString(r.Workload.About))
	for i, s := range r.Series {
		ratio, y := s.ratio(base, rate), plotHead+plotStep*i
		class := "o"
		if strings.HasPrefix(s.Server, "baton") {
			class = "b"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-10, y+plotBar-4, html.EscapeString(s.Server))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="3"/>`, class, plotLeft, y, x(ratio.median)-plotLeft, plotBar)
		fmt.Fprintf(&b, `<line class="w" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, x(ratio.min), x(ratio.max), y+plotBar/2, y+plotBar/2)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.2f</text>`, x(ratio.max)+8, y+plotBar-4, ratio.median)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// SavePlots writes a plot for each result to dir and returns their names.
func (r Report) SavePlots(dir string) ([]string, error) {
	var names []string
	for _, result := range r.Results {
		if len(result.Series) == 0 || len(result.Series[0].Rounds) == 0 {
			continue
		}
		name := filepath.Join(dir, plotName(result.Workload.Name)+".svg")
		if err := writeWhole(name, []byte(result.Plot())); err != nil {
			return names, err
		}
		names = append(names, name)
	}
	return names, nil
}

// plotName makes a workload's name one of a file.
func plotName(workload string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			return c
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		case c == ',':
			return -1
		}
		return '-'
	}, workload)
}

// images are the plots as a document in the repository's root shows them.
func (r Report) images(dir string) string {
	var b strings.Builder
	for _, result := range r.Results {
		name := filepath.ToSlash(filepath.Join(dir, plotName(result.Workload.Name)+".svg"))
		if _, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, "![%s](%s)\n", result.Workload.Name, name)
		}
	}
	return b.String()
}
