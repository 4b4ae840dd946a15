// Package deploy turns sources into artifacts.
//
// It starts toolchains as child processes and ends each with its whole process
// group; it keeps no goroutine of its own.
package deploy
