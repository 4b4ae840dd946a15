package prepare

// Skeleton returns the module b without its code: each function is one that
// traps, custom sections are left out, and one with tag is added. What
// can be asked of a module (types, imports, exports, tables, data) is
// as in b, and it is valid when b is.
//
// With native code that was made of b, a skeleton takes the place of b: decoding
// and validating code is most of what loading a module costs, and all of it is kept in memory
// afterwards. tag must tell modules apart that differ in their code alone.
func Skeleton(b, tag []byte) ([]byte, error) {
	m, err := parse(b)
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(b)/2), "\x00asm\x01\x00\x00\x00"...)
	out = appendSection(out, secCustom, append(appendName(nil, "baton:code"), tag...))
	for _, id := range [...]byte{secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport, secStart, secElement, secDataCount, secCode, secData} {
		if !m.present[id] {
			continue
		}
		content := m.sections[id]
		if id == secCode {
			content = appendU32(nil, uint32(len(m.bodies)))
			for range m.bodies {
				content = append(content, 3, 0, opUnreachable, opEnd)
			}
		}
		out = appendSection(out, id, content)
	}
	return out, nil
}
