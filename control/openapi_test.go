package control

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// document is what of openapi.json is compared with the code.
type document struct {
	Paths map[string]map[string]json.RawMessage
}

type operation struct {
	Security  *[]any
	Responses map[string]json.RawMessage
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// described are the operations of the document: "GET /path".
func described(t *testing.T) map[string]operation {
	t.Helper()
	all := map[string]operation{}
	for path, methods := range readDocument(t).Paths {
		for method, text := range methods {
			if method == "parameters" {
				continue
			}
			var o operation
			if err := json.Unmarshal(text, &o); err != nil {
				t.Fatal(err)
			}
			all[strings.ToUpper(method)+" "+path] = o
		}
	}
	return all
}

func TestDocumentIsTheTable(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	documented := described(t)
	for folder, resources := range map[string]map[string]resource{"": s.routes, "/system/functions/{name}": s.functionRoutes} {
		for path, r := range resources {
			for _, m := range r {
				name := m.name + " " + folder + path
				o, ok := documented[name]
				if !ok {
					t.Errorf("%s is served, and not described", name)
				}
				if anyone := o.Security != nil && len(*o.Security) == 0; anyone != (m.right == rightAnyone) {
					t.Errorf("%s: described to be for anyone: %t", name, anyone)
				}
				if _, ok := o.Responses["401"]; ok != (m.right != rightAnyone) {
					t.Errorf("%s: 401 is described: %t", name, ok)
				}
				delete(documented, name)
			}
		}
	}
	for name := range documented {
		t.Errorf("%s is described, and not served", name)
	}
}

// Every status that is described has a reason, and every reason a status that
// is described.
func TestDocumentHasEveryStatus(t *testing.T) {
	t.Parallel()
	reasonsOf := map[string][]string{}
	for _, r := range reasons {
		reasonsOf[strconv.Itoa(r.status)] = append(reasonsOf[strconv.Itoa(r.status)], r.name)
	}
	deploys := map[string]bool{}
	for r, status := range deployStatus {
		reasonsOf[strconv.Itoa(status)] = append(reasonsOf[strconv.Itoa(status)], string(r))
		deploys[strconv.Itoa(status)] = true
	}
	for r, status := range buildStatus {
		reasonsOf[strconv.Itoa(status)] = append(reasonsOf[strconv.Itoa(status)], r)
		deploys[strconv.Itoa(status)] = true
	}
	used := map[string]bool{}
	for name, o := range described(t) {
		for status := range o.Responses {
			used[status] = true
			if status >= "400" && status != "default" && len(reasonsOf[status]) == 0 {
				t.Errorf("%s: %s is described, and nothing is answered so", name, status)
			}
		}
		if name == "POST /upload" || name == "PUT /system/functions/{name}" {
			for status := range deploys {
				if _, ok := o.Responses[status]; !ok {
					t.Errorf("%s: %s (%v) is not described", name, status, reasonsOf[status])
				}
			}
		}
	}
	for _, status := range slices.Sorted(maps.Keys(reasonsOf)) {
		if !used[status] && status != "405" { // what has no method there has no operation either
			t.Errorf("%s (%v) is described nowhere", status, reasonsOf[status])
		}
	}
}

// The page for people names each path, and each reason that a program may meet.
func TestDocumentForPeople(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for path := range readDocument(t).Paths {
		if !strings.Contains(string(text), strings.ReplaceAll(path, "{name}", "NAME")) {
			t.Errorf("docs/api.md does not name %s", path)
		}
	}
	var all []string
	for r, row := range reasons {
		if reason(r) != reasonDeploy { // counts, and is never answered
			all = append(all, row.name)
		}
	}
	for r := range deployStatus {
		all = append(all, string(r))
	}
	all = append(all, slices.Collect(maps.Keys(buildStatus))...)
	for _, name := range all {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/api.md does not name the reason %s", name)
		}
	}
}
