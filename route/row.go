package route

import "errors"

// Row is one row of the functions table as it came, unchecked.
type Row struct {
	Key   string // "METHOD:/path"
	Value string // the descriptor as JSON
	Cell  uint32 // where the board counts this route's requests; given by the gateway, kept as is
}

// RowError says why a row is not what the table serves. The route's previous
// version, if there is one, goes on serving.
type RowError struct {
	Key string
	Err error
}

func (e RowError) Error() string { return e.Key + ": " + e.Err.Error() }

func (e RowError) Unwrap() error { return e.Err }

// ParseRow reads and checks a whole row: its key, its descriptor, and that the
// two agree. This is exactly what Build and Apply accept, so whoever writes
// rows asks it first. In the result Method and Path are those of the key.
//
// Errors are those of ParseDescriptor, joined with those of the key.
func ParseRow(key, value string) (*Descriptor, error) {
	method, path, keyErr := splitKey(key)
	d, err := ParseDescriptor([]byte(value))
	if err != nil || keyErr != nil {
		return nil, errors.Join(keyErr, err)
	}
	var errs []error
	if d.Method != "" && d.Method != method.String() {
		errs = append(errs, &FieldError{"method", "the key's method " + method.String() + " or none", quote(d.Method)})
	}
	if d.Path != "" && d.Path != path {
		errs = append(errs, &FieldError{"path", "the key's path " + quote(path) + " or none", quote(d.Path)})
	}
	if d.Module == "" {
		errs = append(errs, &FieldError{"module", moduleRule, ""})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	d.Method, d.Path = method.String(), path
	return d, nil
}
