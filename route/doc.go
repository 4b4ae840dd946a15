// Package route turns rows (a key and a descriptor) into an immutable table
// and finds the function of a request in it.
//
// In short:
//
//	ParseDescriptor(v) (*Descriptor, error)     one JSON object, every fault at once; FieldErrors(err) lists them
//	ParseRow(key, value) (*Descriptor, error)   what Build and Apply accept; writers ask it first
//	ResolveModule(dataDir, module)              the artifact's absolute path, or why not
//	Build(generation, rows) (*Table, []RowError)
//	t.Apply(generation, changes)                a new table; a bad row leaves the previous version of its route
//	t.Rebuild(generation, rows)                 a new table of exactly rows, but with the previous versions of bad ones
//	t.Lookup(&m, method, path) Verdict          Found, NotFound, MethodNotAllowed (m.Allow)
//	t.ByName(name), t.Get(key), t.All, t.Len(), t.Generation()
//	Published                                   an atomic pointer to the newest table; one writer, many readers
//	Reserved(path) Area, FunctionName(path)     what is not the table's
//	AppendChange, ParseChanges                  changes as bytes, for frames and snapshots
//
// # Keys
//
// A key is "METHOD:/path"; METHOD is GET, HEAD, POST, PUT, PATCH, DELETE,
// OPTIONS or ANY. A path segment `{name}` is a parameter: one whole segment,
// not empty. A trailing `{name...}` is the rest of the path and may be empty,
// but its slash must be there: `/files/{p...}` has `/files/` and `/files/a/b`,
// and not `/files`. This is the form of Go's net/http.
//
// Among the routes whose path and method fit, the most specific path wins:
// compared segment by segment from the left, plain text before a parameter
// before the rest. So a match is never lost to a more specific route that ends
// elsewhere. On one path, the request's own method wins, then GET for a HEAD
// request, then ANY. Two keys that differ only in parameter names are the same
// route: the lower key serves, and the other one takes over when it goes. The
// higher key is reported when it comes second (ErrShadowed).
//
// Paths are compared as sent, byte for byte: nothing is decoded, merged or
// completed, so `/a%62` is not `/ab`, `//a` is not `/a` and `/a/` is not `/a`.
// A parameter's value is as sent too (AppendDecoded decodes it). No parameter
// and no rest takes a segment `.` or `..`, however it is written.
//
// # Concurrency
//
// No goroutines, no locks. A Table, and a Function in it, is never written
// after it was returned. Hot functions, 0 allocations each: Reserved,
// FunctionName, Table.Lookup, Table.ByName.
package route
