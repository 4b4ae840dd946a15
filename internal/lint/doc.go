// Package lint holds the rules of this repository that no compiler knows, as
// data: who may import what (imports.go), which words and calls are banned
// and what to write instead (words.go), and what is not secure (security.go). Its test applies them to every file.
//
// A red build is a reason to move code, not to edit a table.
package lint
