// Package deploy turns uploads into versions of functions, and versions into
// routes: it has sources built, keeps the files and rows of each version, switches
// between them and removes what is not kept. It also makes data directories, and
// backups of them.
//
// A Deployer has one goroutine, which removes files, and ends with Close. Builds
// run in child processes of package build. Everything else runs on its caller's
// goroutine.
package deploy
